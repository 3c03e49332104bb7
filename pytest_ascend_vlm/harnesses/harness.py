"""Runs an evaluation harness in a process and an interpreter of its own, and reads its scores.

A harness brings a hundred packages, some of them in versions that an inference container must not
get, so nothing of it is imported here. What runs there are the scripts of `children/`: one
job file in, one `result.json` of one form out.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..duration import duration_text
from ..engines.endpoint import Endpoint
from ..errors import ConfigurationError, PreconditionError, ServerError
from ..observation.evaluation import Evaluation, Protocol, Sample
from ..processes.exit_code import exit_code
from ..processes.supervised import SupervisedProcess
from ..progress import ProgressCallback

API_KEY_VARIABLE = "VLM_HARNESS_API_KEY"
LOG = "harness.log"
_CHILDREN = Path(__file__).parent / "children"
_STALL_SECONDS = 1800.0
_ROUNDED = 1e-3


@dataclass(frozen=True)
class Benchmark:
    """A data set as one harness asks it.

    Attributes:
        name: the harness's own name of it.
        dataset: its name on the hub, and its directory under the root of data sets.
        split: the split that is asked, as its files' names begin.
        subsets: the directories of its files; each has to be there.
        metric: the per-sample score, 0..1.
        max_tokens: most tokens of an answer; None for what the harness sets.
    """

    name: str
    dataset: str
    split: str
    subsets: tuple[str, ...]
    metric: str
    max_tokens: int | None = None

    def files(self, root: Path) -> list[Path]:
        """Its files under a root.

        Raises:
            PreconditionError: some are absent; the message has the command that gets them.
        """
        home = root / self.dataset
        found = {
            subset: sorted((home / subset).glob(f"{self.split}-*.parquet"))
            for subset in self.subsets
        }
        absent = [subset for subset, files in found.items() if not files]
        if absent or not (home / "README.md").is_file():
            what = f"{', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}" or "README.md"
            raise PreconditionError(
                f"the data set {self.dataset} is not complete in {home} ({what} is missing). "
                "Nothing is downloaded here; get it where there is a network:\n"
                f"    hf download {self.dataset} --repo-type dataset --local-dir {home}\n"
                "and copy the directory, its README.md included."
            )
        return [file for files in found.values() for file in files]


@dataclass(frozen=True)
class Harness:
    """An evaluation harness.

    Attributes:
        name: "evalscope" or "lm_eval"; a reference names it.
        package: what pip calls it, with its extras.
        script: its script among `children/`.
        answered: glob of the files that get one line for each answer, under the work directory.
        benchmarks: what it can ask, by the name that a criterion has.
    """

    name: str
    package: str
    script: str
    answered: str
    benchmarks: Mapping[str, Benchmark]

    def benchmark(self, task: str) -> Benchmark:
        """A data set by the name that a criterion has.

        Raises:
            ConfigurationError: this harness does not have it.
        """
        if task not in self.benchmarks:
            raise ConfigurationError(
                f"{self.name} has no {task!r} here; it has {', '.join(sorted(self.benchmarks))}."
            )
        return self.benchmarks[task]


@dataclass(frozen=True)
class EvaluationRequest:
    """What a harness is to ask of whom.

    Attributes:
        task: name of the data set.
        root: directory of data sets, `<root>/<organisation>/<name>` as on the hub.
        python: the interpreter that has the harness.
        endpoint: the served model.
        work_dir: keeps what was answered; a run that was interrupted goes on from there, so its
            name has to tell apart all that changes an answer.
        limit: ask only the first so many of each subset; None for all.
        concurrency: requests at a time.
    """

    task: str
    root: Path
    python: Path
    endpoint: Endpoint
    work_dir: Path
    limit: int | None = None
    concurrency: int = 8


def protocol(harness: Harness, task: str, root: Path, python: Path) -> Protocol:
    """What settles a score besides the model, known before anything is asked.

    Raises:
        ConfigurationError: the harness is not installed, or does not have the data set.
        PreconditionError: the data is not there.
    """
    benchmark = harness.benchmark(task)
    return Protocol(
        harness=harness.name,
        version=_version(harness, python),
        benchmark=benchmark.name,
        metric=benchmark.metric,
        dataset_sha256=_digest(root, benchmark.files(root)),
    )


def evaluate(
    harness: Harness, request: EvaluationRequest, asked: Protocol, on_progress: ProgressCallback
) -> Evaluation:
    """Lets a harness ask a served model all questions of a data set.

    Args:
        harness: which.
        request: what of whom.
        asked: the protocol of the same harness and data, which the scores are stamped with. It is
            resolved once, by whoever asks: that takes reading all of the data.
        on_progress: told how far it is.

    Raises:
        ConfigurationError: the harness does not have the data set.
        PreconditionError: the data is not there.
        ServerError: it died or stood still; the message has the root cause.
    """
    work_dir = request.work_dir
    if (work_dir / "result.json").exists():
        shutil.rmtree(work_dir)  # only what was interrupted is taken up again
    work_dir.mkdir(parents=True, exist_ok=True)
    before = _answered(harness, work_dir)
    _write_job(harness, request)
    _run(harness, request, on_progress)
    shutil.rmtree(work_dir / "cache", ignore_errors=True)
    return _read(work_dir / "result.json", asked, request.limit, before)


def _write_job(harness: Harness, request: EvaluationRequest) -> None:
    benchmark = harness.benchmark(request.task)
    job = {
        "benchmark": benchmark.name,
        "metric": benchmark.metric,
        "max_tokens": benchmark.max_tokens,
        "dataset": str((request.root / benchmark.dataset).absolute()),
        "subsets": benchmark.subsets,
        "files": [str(path.absolute()) for path in benchmark.files(request.root)],
        "url": request.endpoint.url,
        "model": request.endpoint.served_name,
        "limit": request.limit,
        "concurrency": request.concurrency,
        "work_dir": str(request.work_dir.absolute()),
    }
    (request.work_dir / "job.json").write_text(json.dumps(job, ensure_ascii=False), "utf-8")


def _run(harness: Harness, request: EvaluationRequest, on_progress: ProgressCallback) -> None:
    work_dir = request.work_dir.absolute()
    script, job = _CHILDREN / harness.script, work_dir / "job.json"
    child = SupervisedProcess(
        [str(request.python), str(script), str(job)],
        work_dir / LOG,
        _environment(request),
        # lm-eval's tasks name data sets as the hub does, which a directory under here answers to.
        cwd=request.root,
    )
    progress = _Progress(harness, request)

    def watch(_elapsed: float) -> None:
        on_progress(progress.now())
        if progress.seconds_without_answer > _STALL_SECONDS:
            problem = f"{harness.name} had no answer for {_STALL_SECONDS / 60:.0f} minutes."
            raise ServerError(child.with_tail(f"{problem} Run it again to go on."))

    code = child.run(watch)
    if code != 0 or not (work_dir / "result.json").is_file():
        problem = (
            f"{harness.name} died ({exit_code(code)}) after {_answered(harness, work_dir)} "
            "answers, which are kept: run it again to go on."
        )
        raise ServerError(child.with_tail(problem))


def _environment(request: EvaluationRequest) -> dict[str, str]:
    local = {}
    if request.endpoint.is_local:
        exempt = ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1,localhost,::1")))
        local = {"NO_PROXY": exempt, "no_proxy": exempt}
    return {
        **local,
        API_KEY_VARIABLE: request.endpoint.api_key,
        # A cache of `datasets` does not notice that a local file has changed.
        "HF_DATASETS_CACHE": str(request.work_dir.absolute() / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class _Progress:
    """How far a harness is, told from what it keeps for a resumption."""

    def __init__(self, harness: Harness, request: EvaluationRequest) -> None:
        self._harness, self._request = harness, request
        self._known = self._first = _answered(harness, request.work_dir)
        self._since = self._changed = time.monotonic()

    @property
    def seconds_without_answer(self) -> float:
        """Seconds since the latest answer."""
        return time.monotonic() - self._changed

    def now(self) -> str:
        """In words."""
        answered, now = _answered(self._harness, self._request.work_dir), time.monotonic()
        if answered != self._known:
            self._known, self._changed = answered, now
        asked = _asked(self._request.work_dir)
        said = f"{self._request.task} by {self._harness.name}: {answered}"
        if asked is None:
            return f"{said} answered, it starts {now - self._since:.0f} s"
        done = answered - self._first
        if not done:
            return f"{said} of {asked}"
        seconds = (now - self._since) * (asked - answered) / done
        return f"{said} of {asked}, about {duration_text(seconds)} left"


def _answered(harness: Harness, work_dir: Path) -> int:
    return sum(_text(path).count("\n") for path in work_dir.glob(harness.answered))


def _asked(work_dir: Path) -> int | None:
    try:
        return int(json.loads((work_dir / "asked.json").read_text("utf-8"))["asked"])
    except (OSError, ValueError):
        return None


def _version(harness: Harness, python: Path) -> str:
    code = f"from importlib.metadata import version; print(version({harness.name!r}))"
    try:
        done = subprocess.run(
            [str(python), "-c", code], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise ConfigurationError(f"there is no interpreter {python} ({error.strerror}).") from error
    if done.returncode != 0:
        raise ConfigurationError(
            f"{harness.name} is not installed for {python}. Give it an environment of its own, it "
            "changes packages that an inference engine pins:\n"
            "    python3 -m venv ~/vlm-harness\n"
            f"    ~/vlm-harness/bin/pip install '{harness.package}'\n"
            "and name it with --vlm-harness-python=$HOME/vlm-harness/bin/python."
        )
    return done.stdout.strip()


def _digest(root: Path, files: list[Path]) -> str:
    """Digest of the names and contents of a data set's files."""
    names = [[str(path.relative_to(root)), _sha256(path)] for path in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _sha256(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            content.update(block)
    return content.hexdigest()


def _read(path: Path, asked: Protocol, limit: int | None, before: int) -> Evaluation:
    """The scores of a run, which have to add up to what the harness itself reports."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    samples = {row.pop("id"): Sample(**row) for row in document["samples"]}
    evaluation = Evaluation(asked, samples, document["total"], limit, resumed=before)
    if len(samples) != len(document["samples"]) or not samples:
        raise ServerError(f"{asked.harness} scored a sample twice, or none (see {path}).")
    if abs(evaluation.score - document["reported"]) > _ROUNDED:
        raise ServerError(
            f"{asked.harness} reports {document['reported']:.4f} for {asked.benchmark}, but its "
            f"samples add up to {evaluation.score:.4f} (see {path}): the report is wrong."
        )
    return evaluation


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
