"""A server's life: phases, budgets, stop, and what is left when the test run is killed.

Most of it runs against `fakes/misbehaving_server.py`: a package named `vllm`, found first on
PYTHONPATH, so that the very command that starts vLLM starts it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from helpers.watch import GONE_WITHIN_SECONDS, Watch

from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.vllm.log import Phase
from pytest_ascend_vlm.engines.vllm.server import Launch, VllmServer
from pytest_ascend_vlm.errors import ServerError
from pytest_ascend_vlm.processes import supervisor
from pytest_ascend_vlm.processes.supervised import SupervisedProcess
from pytest_ascend_vlm.spec.case import Capability, Case, Sampling
from pytest_ascend_vlm.spec.model import Budgets

REPOSITORY = Path(__file__).parent.parent
MODEL_FILE = REPOSITORY / "conformance" / "test_mineru2_5.py"
CAPITAL = Case("text/capital", Capability.TEXT, "What is the capital of France?")

NOISE = (
    "nanobind: leaked 3 types!",
    ' - leaked function "create_module"',
    " - ... skipped remainder",
    "/usr/lib/python3/multiprocessing/resource_tracker.py:254: UserWarning: There appear to be 2",
    "  warnings.warn('resource_tracker: There appear to be %d '",
    "",
)


@dataclass
class Starter:
    """Makes servers of the stand-in, and ends them with the test."""

    directory: Path
    watch: Watch
    phases: list[Phase] = field(default_factory=list)
    servers: list[VllmServer] = field(default_factory=list)

    @property
    def log_path(self) -> Path:
        return self.directory / "logs" / "stand-in.log"

    def __call__(self, budgets: Budgets | None = None, **plan: Any) -> VllmServer:
        launch = Launch(
            model_path=self.directory,
            served_name="stand-in",
            serve={"max_model_len": 64},
            env={**self.watch.environment, "STAND_IN": json.dumps(plan)},
            budgets=budgets or Budgets(start=60, weights=60, graphs=60, first_image=60),
            log_path=self.log_path,
        )
        server = VllmServer(
            launch, CAPITAL, lambda phase, _: self.phases.append(phase), lambda: None
        )
        self.servers.append(server)
        return server

    def log(self) -> str:
        return self.log_path.read_text("utf-8")


@pytest.fixture
def starter(stand_in_root: Path, tmp_path: Path, watch: Watch) -> Iterator[Starter]:  # noqa: ARG001
    starter = Starter(tmp_path, watch)
    yield starter
    for server in starter.servers:
        server.stop()


def test_a_start_follows_the_phases_until_the_first_image(starter: Starter) -> None:
    lines = (
        "A known problem is that capturing too many batch sizes slows down the start.",
        "Starting to load model /m...",
        "Loading weights took 0.5 seconds",
        "Capturing ACL graphs (decode, FULL): 0%",
    )
    server = starter(log=[(0.8, line) for line in lines])
    server.start()
    assert list(dict.fromkeys(starter.phases)) == list(Phase)
    assert list(server.phases_seconds) == [phase.value for phase in Phase]
    assert server.phases_seconds["weights"] > 0.25
    assert starter.log().endswith("up\nrequest 1\n")
    server.require_alive()
    assert server.memory_mib is not None
    assert server.memory_mib > 1


def test_a_ready_server_answers(starter: Starter) -> None:
    server = starter()
    server.start()
    with contextlib.closing(Client(server.endpoint, server.explain_loss)) as client:
        assert client.complete(CAPITAL, Sampling()).text == "Paris"


def test_a_start_that_hangs_is_given_up_at_twice_the_budget_of_its_phase(starter: Starter) -> None:
    lines = ["Starting to load model /m...", "reading shard 3 of 9", *NOISE]
    server = starter(
        Budgets(start=60, weights=1, graphs=60, first_image=60),
        log=[(0, line) for line in lines],
        healthy=False,
    )
    with pytest.raises(ServerError) as caught:
        server.start()
    message = str(caught.value)
    assert "was still in the phase 'weights' after 2 s; its budget is 1 s" in message
    assert "  | reading shard 3 of 9\n  | up\n(whole log: " in message
    assert str(starter.log_path) in message
    assert not starter.watch.left_after(0)


def test_a_server_that_exits_at_once_is_an_error_at_once(starter: Starter) -> None:
    since = time.monotonic()
    with pytest.raises(ServerError) as caught:
        starter(exit=3).start()
    assert time.monotonic() - since < 30  # not when a budget or an answer's time is over
    assert "died" in str(caught.value)
    assert "RuntimeError: no kernel for this device" in str(caught.value)
    assert not starter.watch.left_after(0)


def test_a_server_that_answers_no_image_is_not_ready(starter: Starter) -> None:
    with pytest.raises(ServerError) as caught:
        starter(broken=True).start()
    assert "is healthy but did not answer its first image request" in str(caught.value)
    assert "500" in str(caught.value)
    assert not starter.watch.left_after(0)


def test_a_first_image_that_hangs_is_given_up_at_twice_its_budget(
    starter: Starter,
) -> None:
    budgets = Budgets(start=60, weights=60, graphs=60, first_image=1)
    server = starter(budgets, slow=60)
    since = time.monotonic()
    with pytest.raises(ServerError, match="first image"):
        server.start()
    assert time.monotonic() - since < 30  # not when the answer's time is over
    assert not starter.watch.left_after(0)


def test_a_request_that_kills_the_server_says_so(starter: Starter) -> None:
    server = starter(dies_at=2, runaways=1)
    server.start()
    client = Client(server.endpoint, server.explain_loss)
    with contextlib.closing(client), pytest.raises(ServerError) as caught:
        client.complete(CAPITAL, Sampling())
    assert "died" in str(caught.value)
    assert "  | Fatal Python error: Segmentation fault\n" in str(caught.value)
    assert not starter.watch.left_after(5)


def test_a_server_is_in_our_session_and_in_a_group_of_its_own(starter: Starter) -> None:
    """Linux shares the CPUs out by session: one of its own takes them from the client."""
    server = starter()
    server.start()
    pids = [process.pid for process in starter.watch.processes()]
    assert len(pids) == 2  # supervisor, server
    assert {os.getsid(pid) for pid in pids} == {os.getsid(0)}
    assert len({os.getpgrp(), *map(os.getpgid, pids)}) == 3


def test_a_tool_is_in_our_session_and_in_a_group_of_its_own(tmp_path: Path) -> None:
    """Load generators are clients, too."""
    code = "import os; print(os.getsid(0), os.getpgrp(), os.getpgid(os.getppid()))"
    tool = SupervisedProcess([sys.executable, "-c", code], tmp_path / "tool.log")
    assert tool.run(lambda _: None) == 0
    session, *groups = map(int, tool.log.split())
    assert session == os.getsid(0)
    assert len({os.getpgrp(), *groups}) == 3


def test_temporary_files_of_a_command_are_removed_with_it(tmp_path: Path) -> None:
    code = "import tempfile; print(tempfile.mkstemp()[1]); print(tempfile.gettempdir())"
    tool = SupervisedProcess([sys.executable, "-c", code], tmp_path / "tool.log")
    assert tool.run(lambda _: None) == 0
    file, directory = map(Path, tool.log.split())
    assert file.is_relative_to(directory)
    assert directory != Path(tempfile.gettempdir())
    assert not directory.exists()


def test_a_command_that_cannot_be_run_says_so(tmp_path: Path) -> None:
    tool = SupervisedProcess([str(tmp_path / "absent")], tmp_path / "tool.log")
    assert tool.run(lambda _: None) == 127
    assert tool.log == f"{tmp_path / 'absent'}: No such file or directory\n"


def test_the_exit_code_tells_that_a_command_had_to_be_killed(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(600)"
    log = tmp_path / "tool.log"
    process = SupervisedProcess([sys.executable, "-c", deaf], log).start()
    while not (log.exists() and log.read_text("utf-8")):
        time.sleep(0.05)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 128 + signal.SIGKILL


def test_a_process_that_cannot_be_killed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = SimpleNamespace(pid=1, kill=lambda: None)  # state D
    monkeypatch.setattr(supervisor, "_KILL_SECONDS", 0.3)
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: [hanging])
    monkeypatch.setattr(psutil, "wait_procs", lambda *_, **__: None)
    with subprocess.Popen([sys.executable, "-c", ""]) as server:
        supervisor._kill_all(server)


def test_stop_ends_children_that_left_the_session(starter: Starter) -> None:
    server = starter(runaways=2)
    server.start()
    assert len(starter.watch.processes()) == 4  # supervisor, server, two runaways
    server.stop()
    assert not starter.watch.left_after(0)


def test_stop_may_be_called_at_any_time(starter: Starter) -> None:
    server = starter()
    server.stop()
    server.start()
    server.stop()
    server.stop()
    with pytest.raises(ServerError, match="is not running: it was stopped"):
        server.require_alive()
    assert server.memory_mib is None


def test_a_restart_keeps_the_address(starter: Starter) -> None:
    server = starter()
    server.start()
    before, old = server.endpoint, {process.pid for process in starter.watch.processes()}
    server.restart()
    assert server.endpoint is before
    assert server.starts == 2
    assert not old & {process.pid for process in starter.watch.processes()}
    assert httpx.get(f"{before.url}/health").status_code == 200


def test_the_key_is_secret(starter: Starter) -> None:
    server, other = starter(), starter()
    key = server.endpoint.api_key
    assert len(key) >= 32
    assert key != other.endpoint.api_key
    server.start()
    shown = [" ".join(process.cmdline()) for process in starter.watch.processes()]
    shown += [starter.log(), server.serve_command, repr(server.endpoint)]
    assert not [text for text in shown if key in text]
    unauthorized = httpx.post(f"{server.endpoint.url}/v1/chat/completions", json={})
    assert unauthorized.status_code == 401


def test_nobody_else_can_connect(starter: Starter) -> None:
    server = starter()
    server.start()
    port = int(server.endpoint.url.rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port)).close()
    # Another address of this host; a server that listens on all of them would answer here.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port)).close()


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = starter(Budgets(start=10, weights=10, graphs=10, first_image=10))
    server.start()
    with contextlib.closing(Client(server.endpoint, server.explain_loss)) as client:
        assert client.complete(CAPITAL, Sampling()).text == "Paris"


def test_the_log_is_kept(starter: Starter) -> None:
    server = starter()
    server.start()
    server.stop()
    assert "arguments: --model" in starter.log()
    assert [path.name for path in starter.log_path.parent.iterdir()] == ["stand-in.log"]


# What follows kills a whole test run: `pytest` in a process of its own, on a model file.

STAND_IN_MODEL = """
from pytest_ascend_vlm import Capability as C, ModelSpec, VLMConformance

class TestStandIn(VLMConformance):
    model = ModelSpec(
        "stand/in",
        tiny="tiny",
        supports={C.TEXT},
        unsupported={c: "-" for c in C if c is not C.TEXT},
    )
"""


@dataclass
class RunningPytest:
    """A pytest run in a process of its own, and the log of the server it starts."""

    process: subprocess.Popen[bytes]
    output: Path
    log_dir: Path

    def log(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in self.log_dir.glob("*/*.log"))

    def wait_for(self, pattern: str, seconds: float = 120.0) -> None:
        """Until the server's log has a line that matches."""
        deadline = time.monotonic() + seconds
        while not (self.log_dir.is_dir() and re.search(pattern, self.log(), re.DOTALL)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{pattern!r} was not logged.\n{self.output.read_text('utf-8')}")
            time.sleep(0.02)

    def types(self, keys: bytes) -> None:
        """Types at the terminal of the run."""
        assert self.process.stdin is not None
        self.process.stdin.write(keys)
        self.process.stdin.flush()

    def end(self, number: signal.Signals) -> int:
        """Sends a signal to pytest alone, as the kernel's OOM killer or a CI runner does."""
        assert self.process.poll() is None, "the run was over before it could be killed"
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


# A terminal with a shell that runs a command in the foreground; what we write is typed there.
TERMINAL = """
import pty, sys
pty.spawn(["bash", "-c", 'set -m; "$@"; echo "exit code $?"', "bash", *sys.argv[1:]])
"""


def run_pytest(
    directory: Path,
    log_dir: Path,
    watch: Watch,
    arguments: list[str],
    *,
    at: tuple[str, ...] = (),
    **environment: str,
) -> RunningPytest:
    output = log_dir.with_suffix(".out")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                *at,
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
                *("--vlm-platform=cpu", "--vlm-checkpoint=tiny", f"--vlm-log-dir={log_dir}"),
                *arguments,
            ],
            cwd=directory,
            env={**os.environ, **watch.environment, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdin=subprocess.PIPE if at else None,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return RunningPytest(process, output, log_dir)


def files_under(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _signals_have_their_defaults() -> Iterator[None]:
    """Whoever started us may ignore signals: nohup does, and a shell for jobs in the background.

    Children inherit that. A handler they do not: in them the signal has its default again.
    """
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def project(tmp_path: Path, stand_in_root: Path) -> Path:  # noqa: ARG001
    """A project of one model with one case, served by the stand-in."""
    directory = tmp_path / "project"
    tiny = directory / "fixtures" / "tiny" / "tiny"
    tiny.mkdir(parents=True)
    (tiny / "config.json").write_text("{}", "utf-8")
    (tiny / "model.safetensors").write_bytes(b"weights")
    case = {"id": "text/capital", "needs": "text", "prompt": CAPITAL.prompt, "truth": "Paris"}
    cases = json.dumps({"schema": 1, "cases": [case]})
    (directory / "fixtures" / "cases.json").write_text(cases, "utf-8")
    (directory / "test_model.py").write_text(textwrap.dedent(STAND_IN_MODEL), "utf-8")
    (directory / "pytest.ini").write_text("[pytest]\n", "utf-8")
    return directory


LOG_NAME = "stand--in-TestStandIn.log"
# phase of the run -> how the stand-in behaves, the line of its log that tells the phase
STAND_IN_PHASES: dict[str, tuple[dict[str, Any], str]] = {
    "starting": ({"healthy": False}, "\nup\n"),
    "serving": ({"hang_from": 2}, "request 2"),
    "stopping": ({"deaf": True}, "SIGTERM ignored"),
}
ONE_TEST = ["test_model.py", "-k", "text_is_answered and capital"]


@pytest.mark.parametrize(
    ("phase", "number", "code"),
    [
        ("starting", signal.SIGKILL, -signal.SIGKILL),
        ("serving", signal.SIGKILL, -signal.SIGKILL),
        ("stopping", signal.SIGKILL, -signal.SIGKILL),
        ("starting", signal.SIGINT, pytest.ExitCode.INTERRUPTED),
        ("serving", signal.SIGINT, pytest.ExitCode.INTERRUPTED),
        ("serving", signal.SIGTERM, -signal.SIGTERM),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_a_killed_run_leaves_nothing_behind(
    phase: str, number: signal.Signals, code: int, project: Path, watch: Watch
) -> None:
    plan, line = STAND_IN_PHASES[phase]
    before = files_under(project)
    plan = {**plan, "runaways": 1}
    run = run_pytest(project, project / "logs", watch, ONE_TEST, STAND_IN=json.dumps(plan))
    run.wait_for(line)
    assert len(watch.processes()) >= 4  # pytest, supervisor, server, runaway
    assert run.end(number) == code
    assert not watch.left_after(GONE_WITHIN_SECONDS)
    (logs,) = (project / "logs").iterdir()
    left = {"logs.out", *(f"logs/{logs.name}/{name}" for name in (".lock", LOG_NAME))}
    assert files_under(project) - before == left


@pytest.fixture
def at_a_terminal(project: Path, watch: Watch) -> RunningPytest:
    """A run in the foreground of a terminal, whose server is answering."""
    plan = {"hang_from": 2, "runaways": 1, "asks": True}
    terminal = (sys.executable, "-c", TERMINAL)
    run = run_pytest(
        project, project / "logs", watch, ONE_TEST, at=terminal, STAND_IN=json.dumps(plan)
    )
    run.wait_for("request 2")
    return run


def test_ctrl_c_interrupts_the_run_and_the_run_ends_its_server(
    at_a_terminal: RunningPytest, watch: Watch
) -> None:
    at_a_terminal.types(b"\x03")
    assert not watch.left_after(GONE_WITHIN_SECONDS)
    assert "exit code 2" in at_a_terminal.output.read_text("utf-8")
    assert "KeyboardInterrupt" not in at_a_terminal.log()  # as it would be had it got that, too


@pytest.mark.parametrize("keys", [b"", b"\x1a"], ids=["running", "stopped by Ctrl-Z"])
def test_a_run_whose_terminal_is_closed_leaves_nothing_behind(
    keys: bytes, at_a_terminal: RunningPytest, watch: Watch
) -> None:
    at_a_terminal.types(keys)
    at_a_terminal.process.kill()
    assert not watch.left_after(GONE_WITHIN_SECONDS)


def test_a_server_that_asks_at_the_terminal_is_not_stopped_for_it(
    at_a_terminal: RunningPytest,
) -> None:
    """As the kernel does with what asks from the background."""
    assert "the terminal says nothing" in at_a_terminal.log()


# phase of the run -> what real vLLM has logged by then
VLLM_PHASES = {
    "starting": "EngineCore",
    "serving": "(POST /v1/chat/completions.*){2}",  # the first belongs to the start
}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for temporary files whose path is short enough for vLLM's sockets."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("phase", VLLM_PHASES)
def test_a_killed_run_leaves_no_vllm_behind(
    phase: str, tmp_path: Path, temporary: Path, watch: Watch
) -> None:
    arguments = [str(MODEL_FILE.relative_to(REPOSITORY)), "-k", "capital"]
    run = run_pytest(REPOSITORY, tmp_path / "logs", watch, arguments, TMPDIR=str(temporary))
    run.wait_for(VLLM_PHASES[phase], seconds=300)
    assert len(watch.processes()) >= 4  # pytest, supervisor, server, engine core
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    assert not watch.left_after(GONE_WITHIN_SECONDS)
    assert not list(temporary.glob("vlm-*"))
    assert {path.suffix for path in (tmp_path / "logs").glob("*/[!.]*")} == {".log"}
