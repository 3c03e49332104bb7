"""Promise: the suite takes at most 15 % longer than its server starts and requests alone.

Runs the suite on the tiny checkpoints with real vLLM on this CPU, and records every server start,
stop and request in a journal. Then a bare script starts the same servers and sends the same
requests through the same HTTP client, sequentially, and ignores the answers. Both are timed from
process start to process end. The difference is collecting, comparing and reporting.

Both sides start servers with the same code, so a difference in the start times is noise of the
machine. The ratio with the shorter start times on both sides is printed too. If it differs much
from the judged ratio, the machine was busy: use `--rounds`.

Criteria that wait on purpose are left out: recovery.* waits for a URL that hangs, and for an engine
that it stopped.

Promise: the criteria of images take at most 60 % of the time of all other criteria of one server.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROMISE = 1.15
IMAGE_PROMISE = 0.60
# Images as users send them: computed again, together, of every size and format, in every place.
IMAGE_CRITERIA = frozenset(
    {
        "baseline.frames",
        "baseline.order",
        "baseline.prompt",
        "determinism.batched_images",
        "determinism.cold",
        "determinism.unsure",
        "numerics.answers",
        "numerics.clips",
        "numerics.images",
        "numerics.long_answer",
        "numerics.tokens",
        "serving.formats",
        "serving.image_sizes",
        "serving.largest_image",
        "serving.urls",
    }
)
JOURNAL_VARIABLE = "SUITE_OVERHEAD_JOURNAL"


class Journal:
    """Records all that one process does to its servers, as one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._starting = False

    def write(self, event: str, **details: Any) -> None:
        """Adds a line. The first request of a start is part of the start and is not recorded."""
        if self._starting:
            return
        line = json.dumps({"event": event, **details}, default=str)
        with self._lock:
            self._file.write(f"{line}\n")
            self._file.flush()

    @contextlib.contextmanager
    def spell(self, event: str, **details: Any) -> Iterator[None]:
        """Records a start or stop of a server and then, in another line, its duration."""
        self.write(event, **details)
        self._starting, since = event == "start", time.monotonic()
        try:
            yield
        finally:
            self._starting = False
            self.write("took", what=event, seconds=time.monotonic() - since)


class Criteria:
    """A plugin that records the seconds of each test, without its set-up."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Records a test's name and seconds."""
        if report.when == "call":
            name = report.nodeid.rpartition("::")[2].partition("[")[0]
            self._journal.write("judged", test=name, seconds=report.duration)


def pytest_configure(config: Any) -> None:
    """Starts the journal. This file is also a pytest plugin (`-p suite_overhead`)."""
    import httpx
    from openai.resources.chat.completions import Completions
    from openai.resources.models import Models

    from pytest_ascend_vlm.engines.vllm.server import Launch, VllmServer
    from pytest_ascend_vlm.spec.case import Case
    from pytest_ascend_vlm.spec.case_files import write_case

    journal = Journal(Path(os.environ[JOURNAL_VARIABLE]))
    config.pluginmanager.register(Criteria(journal))

    def create(
        server: VllmServer, original: Callable[..., Any], launch: Launch, first: Case, *rest: Any
    ) -> None:
        about = {"launch": dataclasses.asdict(launch), "first_request": write_case(first)}
        journal.write("server", server=id(server), **about)
        original(server, launch, first, *rest)

    def start(server: VllmServer, original: Callable[..., Any]) -> None:
        with journal.spell("start", server=id(server)):
            original(server)

    def stop(server: VllmServer, original: Callable[..., Any], process: Any) -> Any:
        with journal.spell("stop", server=id(server)):
            return original(server, process)

    def kill(server: VllmServer, original: Callable[..., Any]) -> Any:
        with journal.spell("kill", server=id(server)):
            return original(server)

    def chat(completions: Any, original: Callable[..., Any], **arguments: Any) -> Any:
        journal.write("chat", arguments=arguments)
        return original(completions, **arguments)

    def models(resource: Any, original: Callable[..., Any]) -> Any:
        journal.write("models")
        return original(resource)

    def post(client: httpx.Client, original: Callable[..., Any], url: str, **arguments: Any) -> Any:
        journal.write("post", url=url, content=arguments["content"].decode("utf-8"))
        return original(client, url, **arguments)

    for owner, name, wrapper in (
        (VllmServer, "__init__", create),
        (VllmServer, "start", start),
        (VllmServer, "_stop", stop),  # a restart stops the server as well
        (VllmServer, "kill", kill),
        (Completions, "create", chat),
        (Models, "list", models),
        (httpx.Client, "post", post),
    ):
        wrap(owner, name, wrapper)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leaves out the criteria that wait on purpose."""
    items[:] = [item for item in items if not _waits(item)]


def _waits(item: Any) -> bool:
    from pytest_ascend_vlm.criteria.groups import MARKER

    marker = item.get_closest_marker(MARKER)
    return marker is not None and marker.args[0].id.startswith("recovery.")


def wrap(owner: type, name: str, wrapper: Callable[..., Any]) -> None:
    """Replaces a method by one that gets the original as its second argument."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any, *arguments: Any, **named: Any) -> Any:
        return wrapper(self, original, *arguments, **named)

    setattr(owner, name, wrapped)


class Bare:
    """Replays a journal without pauses."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._servers: dict[int, Any] = {}
        self._connection: contextlib.ExitStack = contextlib.ExitStack()
        self._openai: Any = None
        self._http: Any = None

    def replay(self, line: dict[str, Any]) -> None:
        """Replays one line of the journal."""
        does = getattr(self, f"_{line['event']}", None)
        if does is not None:
            does(line)

    def _server(self, line: dict[str, Any]) -> None:
        from pytest_ascend_vlm.engines.vllm.server import Launch, VllmServer
        from pytest_ascend_vlm.spec.case_files import read_case
        from pytest_ascend_vlm.spec.model import Budgets

        launch = line["launch"]
        self._servers[line["server"]] = VllmServer(
            Launch(
                **{
                    **launch,
                    "model_path": Path(launch["model_path"]),
                    "budgets": Budgets(**launch["budgets"]),
                    "log_path": self._log_dir / Path(launch["log_path"]).name,
                }
            ),
            read_case(Path(), line["first_request"]),
            lambda *_: None,
            lambda: None,
        )

    def _start(self, line: dict[str, Any]) -> None:
        server = self._servers[line["server"]]
        server.start()
        self._connect(server.endpoint)

    def _connect(self, endpoint: Any) -> None:
        import httpx
        import openai

        self._connection.close()
        self._openai = self._connection.enter_context(
            openai.OpenAI(
                base_url=f"{endpoint.url}/v1",
                api_key=endpoint.api_key,
                timeout=600.0,
                # vLLM closes the connection after a request that it answers with a 500.
                max_retries=1,
            )
        )
        self._http = self._connection.enter_context(
            httpx.Client(
                base_url=endpoint.url,
                headers={"Authorization": f"Bearer {endpoint.api_key}"},
                timeout=600.0,
            )
        )

    def _stop(self, line: dict[str, Any]) -> None:
        self._servers[line["server"]].stop()

    def _kill(self, line: dict[str, Any]) -> None:
        self._servers[line["server"]].kill()

    def _chat(self, line: dict[str, Any]) -> None:
        import openai

        with contextlib.suppress(openai.APIStatusError):  # the suite sends bad requests as well
            reply = self._openai.chat.completions.create(**line["arguments"])
            if line["arguments"].get("stream"):
                for _ in reply:
                    pass

    def _models(self, line: dict[str, Any]) -> None:  # noqa: ARG002
        list(self._openai.models.list())

    def _post(self, line: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        self._http.post(line["url"], content=line["content"], headers=headers)


def replay(path: Path) -> int:
    """The bare script: replays a journal and prints the seconds it spent on starts and stops."""
    bare, spent = Bare(path.parent / "bare-logs"), {"start": 0.0, "stop": 0.0}
    for line in read(path):
        since = time.monotonic()
        bare.replay(line)
        if line["event"] in spent:
            spent[line["event"]] += time.monotonic() - since
    print(json.dumps(spent))
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@dataclass(frozen=True)
class Timing:
    """Seconds of one side: the whole process, and its share for starting and stopping servers."""

    total: float
    starts: float
    stops: float

    @property
    def rest(self) -> float:
        """The remaining seconds: imports, requests and, for the suite, judging."""
        return self.total - self.starts - self.stops


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    """Wall time and output of a process that has to succeed."""
    since = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - since
    if ran.returncode != 0:
        sys.exit(f"{' '.join(command)} exited with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return seconds, ran.stdout


def warm_up() -> None:
    """Imports vLLM once, so that both sides find it in the disk cache."""
    from pytest_ascend_vlm.engines.torch_companions import child_pythonpath

    path = child_pythonpath(os.environ.get("PYTHONPATH"))
    timed(["-c", "import vllm.entrypoints.openai.api_server"], PYTHONPATH=path)


def time_suite(journal: Path, selection: list[str]) -> Timing:
    """Runs the suite, which writes the journal."""
    here = str(Path(__file__).parent)
    inherited = os.environ.get("PYTHONPATH")
    seconds, output = timed(
        [
            *("-m", "pytest", "-p", Path(__file__).stem, "-p", "no:cacheprovider", "-q"),
            *("--vlm-platform=cpu", "--vlm-checkpoint=tiny"),
            *(f"--vlm-log-dir={journal.parent / 'suite-logs'}", *selection),
        ],
        PYTHONPATH=os.pathsep.join([here, *([inherited] if inherited else [])]),
        **{JOURNAL_VARIABLE: str(journal)},
    )
    print(output.strip().splitlines()[-1])
    spent: Counter[str] = Counter()
    for line in read(journal):
        if line["event"] == "took":
            spent[line["what"]] += line["seconds"]
    return Timing(seconds, spent["start"], spent["stop"])


def time_bare(journal: Path) -> Timing:
    """Runs the bare script on the journal."""
    seconds, output = timed([str(Path(__file__).resolve()), "--replay", str(journal)])
    spent = json.loads(output.splitlines()[-1])
    return Timing(seconds, spent["start"], spent["stop"])


def judging(journal: Path) -> tuple[float, float]:
    """Seconds of the criteria of images, and of all others that judge the same servers.

    A restart is among the others. Left out are criteria that end the server, or need an engine of
    their own.
    """
    from pytest_ascend_vlm import VLMConformance
    from pytest_ascend_vlm.criteria.criterion import criteria

    known = {test.__name__: criterion for criterion, test in criteria(VLMConformance)}
    of_images = others = 0.0
    for line in read(journal):
        criterion = known.get(line["test"]) if line["event"] == "judged" else None
        if criterion is None or criterion.ends_server:
            continue
        if criterion.id in IMAGE_CRITERIA:
            of_images += line["seconds"]
        else:
            others += line["seconds"]
    return of_images, others


def fastest(timings: list[Timing]) -> Timing:
    """The timing with the least disturbance."""
    return min(timings, key=lambda timing: timing.total)


def show(suite: Timing, bare: Timing, journal: Path) -> bool:
    """Prints both sides; returns True if both promises hold."""
    events = [line["event"] for line in read(journal)]
    requests = sum(event in {"chat", "models", "post"} for event in events)
    ratio = suite.total / bare.total
    starts = min(suite.starts, bare.starts)
    even = (suite.total - suite.starts + starts) / (bare.total - bare.starts + starts)
    of_images, others = judging(journal)
    share = of_images / others if others else 0.0
    holds = ratio <= PROMISE and share <= IMAGE_PROMISE
    print(f"{events.count('start')} server starts, {requests} requests; seconds")
    print(f"{'':24}{'suite':>9}{'bare':>9}")
    for label, left, right in (
        ("servers starting", suite.starts, bare.starts),
        ("servers stopping", suite.stops, bare.stops),
        ("requests, all else", suite.rest, bare.rest),
        ("in all", suite.total, bare.total),
    ):
        print(f"  {label:22}{left:9.1f}{right:9.1f}")
    print(f"  ratio {ratio:.3f}, promised at most {PROMISE}: {_word(ratio <= PROMISE)}")
    print(f"  ratio {even:.3f} with the shorter starts on both sides")
    print(
        f"criteria of images {of_images:.1f} s, the others of one server {others:.1f} s: ratio "
        f"{share:.3f}, promised at most {IMAGE_PROMISE}: {_word(share <= IMAGE_PROMISE)}"
    )
    result = {
        "benchmark": "suite_overhead",
        "suite_seconds": round(suite.total, 2),
        "bare_seconds": round(bare.total, 2),
        "ratio": round(ratio, 4),
        "ratio_with_equal_starts": round(even, 4),
        "requests": requests,
        "server_starts": events.count("start"),
        "promise": PROMISE,
        "image_criteria_seconds": round(of_images, 2),
        "other_criteria_seconds": round(others, 2),
        "image_ratio": round(share, 4),
        "image_promise": IMAGE_PROMISE,
        "holds": holds,
    }
    print(json.dumps(result))
    return holds


def _word(holds: bool) -> str:
    return "holds" if holds else "BROKEN"


def main() -> int:
    """Measures and prints; the exit code is 0 if the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "selection",
        nargs="*",
        default=["conformance"],
        help="what pytest is to run (default: conformance); put its options behind --",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="on a busy machine: repeat both in turns and compare the fastest of each",
    )
    parser.add_argument("--replay", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    with tempfile.TemporaryDirectory() as name:
        journal = Path(name) / "journal.jsonl"
        warm_up()
        suites, bares = [], []
        for _ in range(arguments.rounds):
            journal.write_bytes(b"")
            suites.append(time_suite(journal, arguments.selection))
            bares.append(time_bare(journal))
        return 0 if show(fastest(suites), fastest(bares), journal) else 1


if __name__ == "__main__":
    sys.exit(main())
