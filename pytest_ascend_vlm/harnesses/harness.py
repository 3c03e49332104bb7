"""Runs an evaluation harness in an interpreter of its own, and reads its scores.

A harness installs about a hundred packages, some in versions that an inference container must not
get. Therefore nothing of a harness is imported here. Its interpreter runs a script of `children/`,
which reads a job file and writes `result.json`.
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
from ..golden.digests import file_digest
from ..observation.evaluation import Evaluation, Protocol, Sample
from ..processes.exit_code import exit_code
from ..processes.supervised import SupervisedProcess
from ..progress import ProgressCallback

API_KEY_VARIABLE = "VLM_HARNESS_API_KEY"
LOG = "harness.log"
_CHILDREN = Path(__file__).parent / "children"
STALL_SECONDS = 1800.0
_ROUNDED = 1e-3


@dataclass(frozen=True)
class Benchmark:
    """A data set, as one harness runs it.

    Attributes:
        name: the harness's own name of the data set.
        dataset: its name on the hub, which is also its directory under the root of data sets.
        split: the split that is run, which is also the prefix of its files' names.
        subsets: the directories of its files; all are required.
        metric: name of the score of a sample, 0 to 1.
        max_tokens: maximum number of tokens of an answer; None for the harness's default.
    """

    name: str
    dataset: str
    split: str
    subsets: tuple[str, ...]
    metric: str
    max_tokens: int | None = None

    def files(self, root: Path) -> list[Path]:
        """The data set's files under a root.

        Raises:
            PreconditionError: if some are missing; the message contains the download command.
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
                "The suite downloads nothing. Download it on a machine with network access:\n"
                f"    hf download {self.dataset} --repo-type dataset --local-dir {home}\n"
                "and copy the directory, including README.md."
            )
        return [file for files in found.values() for file in files]


@dataclass(frozen=True)
class Harness:
    """An evaluation harness.

    Attributes:
        name: "evalscope" or "lm_eval".
        package: its requirement for pip, with extras.
        script: file name of its script in `children/`.
        answered: glob, under the work directory, of the files with one line per answer.
        benchmarks: the data sets it can run, by task.
    """

    name: str
    package: str
    script: str
    answered: str
    benchmarks: Mapping[str, Benchmark]

    def benchmark(self, task: str) -> Benchmark:
        """The data set of a task.

        Raises:
            ConfigurationError: if this harness does not know the task.
        """
        if task not in self.benchmarks:
            known = ", ".join(sorted(self.benchmarks))
            raise ConfigurationError(f"{self.name} does not know {task!r}; it knows {known}.")
        return self.benchmarks[task]


@dataclass(frozen=True)
class EvaluationRequest:
    """A data set to run, the model to ask, and the places of all files.

    Attributes:
        task: the task, which names the data set.
        root: directory of data sets, laid out as on the hub: `<root>/<organisation>/<name>`.
        python: the interpreter in which the harness is installed.
        endpoint: the served model.
        work_dir: directory for the answers. An interrupted run is resumed from them, so whatever
            changes an answer must change this path.
        limit: number of samples per subset, from its start; None for all.
        concurrency: maximum number of requests in flight.
    """

    task: str
    root: Path
    python: Path
    endpoint: Endpoint
    work_dir: Path
    limit: int | None = None
    concurrency: int = 8


def protocol(harness: Harness, task: str, root: Path, python: Path) -> Protocol:
    """The protocol of an evaluation: all that decides about a score except the model.

    Raises:
        ConfigurationError: if the harness is not installed or does not know the task.
        PreconditionError: if files of the data set are missing.
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
    """Runs a data set on a served model.

    Args:
        harness: the harness to run.
        request: the data set and the model.
        asked: the protocol of this harness and data set, which is stored with the scores. The
            caller computes it only once, because that reads all of the data.
        on_progress: called with the number of answers and the time left.

    Raises:
        ConfigurationError: if the harness does not know the task.
        PreconditionError: if files of the data set are missing.
        ServerError: if the harness dies or makes no progress; the message has the root cause.
    """
    work_dir = request.work_dir
    if (work_dir / "result.json").exists():
        shutil.rmtree(work_dir)  # only an interrupted run is resumed
    work_dir.mkdir(parents=True, exist_ok=True)
    before = answered(harness, work_dir)
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
        # lm-eval's tasks name data sets as on the hub; from here these names are directories.
        cwd=request.root,
    )
    progress = _Progress(harness, request)

    def on_poll(_elapsed: float) -> None:
        on_progress(progress.now())
        if progress.seconds_without_answer > STALL_SECONDS:
            problem = f"{harness.name} got no answer for {STALL_SECONDS / 60:.0f} minutes."
            raise ServerError(child.with_tail(f"{problem} Run it again to resume."))

    code = child.run(on_poll)
    if code != 0 or not (work_dir / "result.json").is_file():
        problem = (
            f"{harness.name} died ({exit_code(code)}) after {answered(harness, work_dir)} "
            "answers. They are kept: run it again to resume."
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
        # The cache of `datasets` does not notice a changed local file, so each run has its own.
        "HF_DATASETS_CACHE": str(request.work_dir.absolute() / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class _Progress:
    """Progress of a harness, read from the answers that it stores."""

    def __init__(self, harness: Harness, request: EvaluationRequest) -> None:
        self._harness, self._request = harness, request
        self._known = self._first = answered(harness, request.work_dir)
        self._since = self._changed = time.monotonic()

    @property
    def seconds_without_answer(self) -> float:
        """Seconds since the number of answers last changed."""
        return time.monotonic() - self._changed

    def now(self) -> str:
        """The progress as one line of text."""
        count, now = answered(self._harness, self._request.work_dir), time.monotonic()
        if count != self._known:
            self._known, self._changed = count, now
        asked = _asked(self._request.work_dir)
        line = f"{self._request.task} by {self._harness.name}: {count}"
        if asked is None:
            return f"{line} answered, starting for {now - self._since:.0f} s"
        done = count - self._first
        if not done:
            return f"{line} of {asked}"
        seconds = (now - self._since) * (asked - count) / done
        return f"{line} of {asked}, about {duration_text(seconds)} left"


def answered(harness: Harness, work_dir: Path) -> int:
    """The number of answers that the harness has stored so far."""
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
        raise ConfigurationError(
            f"the interpreter {python} cannot be run ({error.strerror})."
        ) from error
    if done.returncode != 0:
        raise ConfigurationError(
            f"{harness.name} is not installed for {python}. Install it in a separate environment, "
            "because it changes packages that an inference engine pins:\n"
            "    python3 -m venv ~/vlm-harness\n"
            f"    ~/vlm-harness/bin/pip install '{harness.package}'\n"
            "and pass --vlm-harness-python=$HOME/vlm-harness/bin/python."
        )
    return done.stdout.strip()


def _digest(root: Path, files: list[Path]) -> str:
    """SHA-256 of the names and contents of a data set's files."""
    names = [[str(path.relative_to(root)), file_digest(path)] for path in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _read(path: Path, asked: Protocol, limit: int | None, before: int) -> Evaluation:
    """Reads the scores of a run, whose mean has to equal the score that the harness reports."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    samples = {row.pop("id"): Sample(**row) for row in document["samples"]}
    evaluation = Evaluation(asked, samples, document["total"], limit, resumed=before)
    if len(samples) != len(document["samples"]) or not samples:
        raise ServerError(f"{asked.harness} scored no sample, or one of them twice (see {path}).")
    if abs(evaluation.score - document["reported"]) > _ROUNDED:
        raise ServerError(
            f"{asked.harness} reports {document['reported']:.4f} for {asked.benchmark}, but its "
            f"samples have the mean {evaluation.score:.4f} (see {path}): the report is wrong."
        )
    return evaluation


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
