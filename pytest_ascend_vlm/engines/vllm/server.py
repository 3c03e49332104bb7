"""A vLLM server's life: start, phases, readiness, stop, and nothing left behind.

Ready means that the process lives, `/health` is 200 **and an image request was answered**: on an
accelerator the first image compiles and allocates, and a server that answers text only is not up.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from ...errors import ServerError
from ...observation.shutdown import ShutdownReport
from ...processes import supervisor
from ...processes.exit_code import exit_code
from ...processes.post_mortem import post_mortem
from ...processes.supervised import spawn
from ...spec.case import Case, Sampling
from ...spec.model import Budgets
from ...spec.thresholds import MEMORY_TOLERANCE_MIB
from .. import torch_companions
from ..client import Client
from ..endpoint import Endpoint
from .arguments import command_line

_POLL_SECONDS = 0.25
_EXIT_GRACE_SECONDS = supervisor.DESCENDANT_GRACE_SECONDS + 2.0
_MEMORY_SECONDS = 15.0
_MOST_DEATHS = 3
_PATIENCE = 2
"""A phase of a start may take so many times its budget. Longer is a hang, and an error."""


class Phase(enum.Enum):
    """What a starting server is doing; the value is how a reader is told."""

    START = "start"
    WEIGHTS = "weights"
    GRAPHS = "graphs"
    FIRST_IMAGE = "first image"


_LOGGED = {
    Phase.WEIGHTS: re.compile(r"Starting to load model|Loading (?:safetensors|model weights)"),
    Phase.GRAPHS: re.compile(r"Loading weights took|Model loading took|[Cc]apturing"),
}


@dataclass(frozen=True)
class Launch:
    """What it takes to start a server.

    Attributes:
        model_path: the checkpoint's directory.
        served_name: the name it is served under.
        serve: vLLM's arguments of the deployment, as Python values.
        env: environment of the deployment, on top of the caller's.
        budgets: seconds per phase.
        log_path: file that gets the server's output.
        suite_serve: vLLM's arguments that the suite adds to see what it judges.
        device_env: environment that confines the server to its devices.
    """

    model_path: Path
    served_name: str
    serve: Mapping[str, Any]
    env: Mapping[str, str]
    budgets: Budgets
    log_path: Path
    suite_serve: Mapping[str, Any] = field(default_factory=dict)
    device_env: Mapping[str, str] = field(default_factory=dict)


class VllmServer:
    """One vLLM server in a process group of its own, on a free loopback port.

    A start that failed is not tried again: it is one finding, whoever asks next. A server that dies
    while it serves is started again for the next test (`recover`), until it did so three times.
    """

    can_restart = True

    def __init__(
        self,
        launch: Launch,
        first_request: Case,
        on_phase: Callable[[Phase, float], None],
        device_memory_mib: Callable[[], float | None],
    ) -> None:
        """Prepares a server; `start` starts it.

        Args:
            launch: what to start.
            first_request: an image request; the server is ready when it answered it.
            on_phase: told the phase and its seconds so far.
            device_memory_mib: memory in use on its cards, None where that cannot be told.
        """
        self.launch = launch
        self.starts = 0
        self.shutdown_report: ShutdownReport | None = None
        self.phases_seconds: Mapping[str, float] = {}
        self.first_start_seconds: Mapping[str, float] = {}
        self._first_request = first_request
        self.endpoint = Endpoint(
            f"http://127.0.0.1:{_free_port()}", launch.served_name, secrets.token_urlsafe(24)
        )
        self._on_phase = on_phase
        self._device_memory_mib = device_memory_mib
        self._memory_before: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._serves = False
        self._did_not_start: ServerError | None = None
        self._death: ServerError | None = None
        self._deaths = 0
        self._one_at_a_time = threading.Lock()

    @property
    def serve_command(self) -> str:
        """The deployment as a reader would type it, with its environment.

        Address, key, the choice of devices and the suite's own arguments are left out.
        """
        env = [f"{name}={shlex.quote(value)}" for name, value in self.launch.env.items()]
        words = ["vllm", "serve", self.launch.served_name, *command_line(self.launch.serve)]
        return " ".join([*env, shlex.join(words)])

    @property
    def suite_arguments(self) -> str:
        """The arguments that the suite added to those of the deployment."""
        return shlex.join(command_line(self.launch.suite_serve))

    @property
    def log_path(self) -> Path:
        """The log of the latest start; a restart does not overwrite the first one's."""
        first = self.launch.log_path
        return first if self.starts <= 1 else first.with_suffix(f".{self.starts}.log")

    @property
    def memory_mib(self) -> float | None:
        """Memory it holds on its cards, or where there are none in its processes.

        None when it is not running.
        """
        if self._process is None:
            return None
        if self._memory_before is not None and (now := self._device_memory_mib()) is not None:
            return now - self._memory_before
        with contextlib.suppress(psutil.NoSuchProcess):
            return float(sum(one.memory_info().rss for one in self.processes())) / 2**20
        return None

    def processes(self) -> list[psutil.Process]:
        """The server and all that it started."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def start(self) -> None:
        """Starts the server and returns when it is ready.

        Raises:
            ServerError: it died, or a phase took twice its budget; the message has the root cause.
                The same again if an earlier start has failed.
        """
        if self._did_not_start is not None:
            raise self._did_not_start
        self.phases_seconds = {}
        self._serves, self._death = False, None
        self.starts += 1
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_bytes(b"")
        self._memory_before = self._device_memory_mib()
        self._process = spawn(
            self._command(), self.log_path, self._environment(), stdout=subprocess.PIPE
        )
        try:
            self._follow_phases()
            self._follow_first_image()
            self.first_start_seconds = self.first_start_seconds or self.phases_seconds
            self._serves = True
        except BaseException as error:
            self._did_not_start = error if isinstance(error, ServerError) else None
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the server and every process it started; returns when all are gone."""
        process, self._process = self._process, None
        if process is not None:
            self.shutdown_report = self._stop(process)

    def restart(self) -> ShutdownReport:
        """Replaces the server by a fresh one at the same address; returns what the old one left."""
        process, self._process = self.require_alive(), None
        self.shutdown_report = self._stop(process)
        self.start()
        return self.shutdown_report

    def kill(self) -> ShutdownReport:
        """Kills the server's leading process and returns when all that it left is gone."""
        process, self._process = self.require_alive(), None
        # Orphans of the server are children of the supervisor too; the server itself is its first.
        min(psutil.Process(process.pid).children(), key=psutil.Process.create_time).kill()
        return self._await_end(process)

    def ensure_running(self) -> None:
        """Starts the server again after `kill`; does nothing to one that runs."""
        if self._process is None:
            self.start()

    def recover(self) -> None:
        """Before a test: starts the server again if it died, so that no test pays for another.

        Raises:
            ServerError: it died, and no test has been told; it does not start; or it died so often
                that it is not started again.
        """
        if self._process is None or self._process.poll() is None:
            return
        if self._death is None:
            self.require_alive()
        if self._deaths >= _MOST_DEATHS:
            raise ServerError(
                f"the server of {self.launch.served_name} died {self._deaths} times while it "
                "served, and is not started again. Each death is told at the test it came in."
            )
        self.stop()
        self.shutdown_report = None  # of a crash: it says nothing about how a server stops
        self.start()

    def _stop(self, process: subprocess.Popen[bytes]) -> ShutdownReport:
        with contextlib.suppress(BrokenPipeError):
            _pipe(process.stdin).write(b"stop")
            _pipe(process.stdin).flush()
        return self._await_end(process)

    def _await_end(self, process: subprocess.Popen[bytes]) -> ShutdownReport:
        """What was left when the supervisor is gone and the cards' memory had time to be back."""
        since = time.monotonic()
        allowed = supervisor.SIGTERM_TIMEOUT_SECONDS + 2 * supervisor.DESCENDANT_GRACE_SECONDS
        try:
            process.wait(timeout=allowed)
            survivors_json = _pipe(process.stdout).read()
        except subprocess.TimeoutExpired:
            raise ServerError(
                f"the server of {self.launch.served_name} did not stop within {allowed:.0f} s; "
                f"look for processes that cannot be killed (state D) and at {self.log_path}"
            ) from None
        finally:
            with contextlib.suppress(BrokenPipeError):
                _pipe(process.stdin).close()
            _pipe(process.stdout).close()
        seconds = time.monotonic() - since
        survivors = tuple(json.loads(survivors_json or b"[]"))
        return ShutdownReport(survivors, self._memory_before, self._settled_memory(), seconds)

    def _settled_memory(self) -> float | None:
        """Device memory once it is back at its level before the start, or when waiting is over."""
        deadline = time.monotonic() + _MEMORY_SECONDS
        now, before = self._device_memory_mib(), self._memory_before
        while now is not None and before is not None and now > before + MEMORY_TOLERANCE_MIB:
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
            now = self._device_memory_mib()
        return now

    def explain_loss(self) -> None:
        """After a lost connection: raises ServerError with the root cause if the server died.

        The connection breaks a moment before the last of its processes is gone.
        """
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_GRACE_SECONDS)
        self.require_alive()

    def require_alive(self) -> subprocess.Popen[bytes]:
        """The process that supervises the server.

        Raises:
            ServerError: the server died; the message has the root cause.
        """
        name = self.launch.served_name
        if self._process is None:
            raise ServerError(f"the server of {name} is not running: it was stopped")
        code = self._process.poll()
        if code is None:
            return self._process
        with self._one_at_a_time:  # requests that were sent together are lost together
            if self._death is None:
                problem = f"the server of {name} died {self._when()} ({exit_code(code)})"
                self._death = ServerError(self._post_mortem(problem))
                self._deaths += 1
        raise self._death

    def _when(self) -> str:
        return "while it served" if self._serves else f"in the phase '{self._phase().value}'"

    def _phase(self) -> Phase:
        """The phase of a start, as far as the log tells; a healthy server is at its first image."""
        healthy = Phase.FIRST_IMAGE.value in self.phases_seconds
        return Phase.FIRST_IMAGE if healthy else phase_of(self._log())

    def _command(self) -> list[str]:
        port = self.endpoint.url.rpartition(":")[2]
        return [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(self.launch.model_path),
            "--served-model-name", self.launch.served_name,
            "--host", "127.0.0.1", "--port", port,
            *command_line({**self.launch.serve, **self.launch.suite_serve}),
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.launch.env,
            **self.launch.device_env,
            "PYTHONPATH": torch_companions.child_pythonpath(os.environ.get("PYTHONPATH")),
            "VLLM_API_KEY": self.endpoint.api_key,
        }

    def _follow_phases(self) -> None:
        """Until `/health` is 200: reads the phase off the log, and gives up one that hangs."""
        phase, since = Phase.START, time.monotonic()
        with httpx.Client(base_url=self.endpoint.url, timeout=5.0, trust_env=False) as http:
            while not _is_healthy(http):
                elapsed = time.monotonic() - since
                self._note(phase, elapsed)
                self.require_alive()
                if elapsed > _PATIENCE * _budget(self.launch.budgets, phase):
                    raise ServerError(self._out_of_time(phase))
                if (latest := phase_of(self._log())) is not phase:
                    phase, since = latest, time.monotonic()
                time.sleep(_POLL_SECONDS)
        self._note(phase, time.monotonic() - since)

    def _follow_first_image(self) -> None:
        phase, since = Phase.FIRST_IMAGE, time.monotonic()
        longest = _PATIENCE * _budget(self.launch.budgets, phase)
        self._note(phase, 0.0)
        try:
            with contextlib.closing(Client(self.endpoint, self.explain_loss, longest)) as client:
                client.complete(self._first_request, Sampling(max_tokens=1))
        except ServerError as error:
            self.require_alive()
            if time.monotonic() - since >= longest:
                raise ServerError(self._out_of_time(phase)) from error
            raise ServerError(
                self._post_mortem(
                    f"the server of {self.launch.served_name} is healthy but did not answer its "
                    f"first image request: {error}"
                )
            ) from error
        self._note(phase, time.monotonic() - since)

    def _note(self, phase: Phase, seconds: float) -> None:
        self.phases_seconds = {**self.phases_seconds, phase.value: seconds}
        self._on_phase(phase, seconds)

    def _log(self) -> str:
        return self.log_path.read_text("utf-8", errors="replace")

    def _out_of_time(self, phase: Phase) -> str:
        budget = _budget(self.launch.budgets, phase)
        return self._post_mortem(
            f"the server of {self.launch.served_name} was still in the phase '{phase.value}' after "
            f"{_PATIENCE * budget:.0f} s; its budget is {budget:.0f} s (ModelSpec.budgets)"
        )

    def _post_mortem(self, problem: str) -> str:
        return post_mortem(f"{problem}.", self._log(), self.log_path)


def phase_of(log: str) -> Phase:
    """The phase that a server's log has reached, before it is healthy."""
    for phase in (Phase.GRAPHS, Phase.WEIGHTS):
        if _LOGGED[phase].search(log):
            return phase
    return Phase.START


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ServerError("the supervisor was started without its pipes")
    return stream


def _is_healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def _budget(budgets: Budgets, phase: Phase) -> float:
    return float(getattr(budgets, phase.name.lower()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
