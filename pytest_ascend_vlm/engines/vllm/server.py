"""Starts, observes and stops a vLLM server.

A server is ready if its process runs, `/health` returns 200 **and it has answered an image
request**: on an accelerator the first image still compiles kernels and allocates memory, and a
server that answers only text is not ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import signal
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
from ...observation.memory import EngineMemory
from ...observation.serving_mode import ServingMode
from ...observation.shutdown import ShutdownReport
from ...processes import supervisor
from ...processes.exit_code import exit_code
from ...processes.post_mortem import post_mortem
from ...processes.supervised import SupervisedProcess
from ...spec.case import Case, Sampling
from ...spec.model import Budgets
from ...spec.thresholds import MEMORY_TOLERANCE_MIB
from .. import torch_companions
from ..client import Client
from ..endpoint import Endpoint
from ..health import health
from . import serving_mode
from .arguments import command_line, serve_command
from .log import Phase, architecture_of, memory_of, milestones_of, phase_of

_POLL_SECONDS = 0.25
_HEALTH_SECONDS = 5.0
_EXIT_GRACE_SECONDS = supervisor.DESCENDANT_GRACE_SECONDS + 2.0
_MEMORY_SECONDS = 15.0
_MAX_DEATHS = 3
_ENGINE = "EngineCore"
_HELPER = "multiprocessing.resource_tracker"
_BUDGET_FACTOR = 2
"""A phase of a start may take this multiple of its budget; a longer phase counts as a hang."""


@dataclass(frozen=True)
class Launch:
    """The parameters of a server's start.

    Attributes:
        model_path: the checkpoint's directory.
        served_name: the model name in requests.
        serve: the deployment's vLLM arguments, as Python values.
        env: the deployment's environment variables, added to the current environment.
        budgets: seconds per phase.
        log_path: file for the server's output.
        suite_serve: vLLM arguments that the suite adds for its measurements.
        device_env: environment variables that restrict the server to its devices or threads.
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

    A failed start is not repeated: every later `start` raises the same error. A server that dies
    while it serves is started again for the next test (`recover`), until it has died three times.
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
            launch: the parameters of the start.
            first_request: an image request; the server is ready once it has answered it.
            on_phase: called with the current phase and its elapsed seconds.
            device_memory_mib: returns the memory in use on the server's cards, in MiB; None if it
                cannot be measured.
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
        self._is_ready = False
        self._start_error: ServerError | None = None
        self._death: ServerError | None = None
        self._deaths = 0
        self._death_lock = threading.Lock()
        self._start_lock = threading.Lock()

    def command(self) -> list[str]:
        """The command that starts the server."""
        port = self.endpoint.url.rpartition(":")[2]
        return [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(self.launch.model_path),
            "--served-model-name", self.launch.served_name,
            "--host", "127.0.0.1", "--port", port,
            *command_line({**self.launch.serve, **self.launch.suite_serve}),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """The variables that are added to this process's environment."""
        return {
            **self.launch.env,
            **self.launch.device_env,
            "PYTHONPATH": torch_companions.child_pythonpath(os.environ.get("PYTHONPATH")),
            "VLLM_API_KEY": self.endpoint.api_key,
        }

    @property
    def serve_command(self) -> str:
        """The deployment's command line, with its environment variables.

        Leaves out the address, the API key, the devices and the suite's own arguments.
        """
        return serve_command(self.launch.served_name, self.launch.serve, self.launch.env)

    @property
    def suite_arguments(self) -> str:
        """The arguments that the suite adds to those of the deployment."""
        return shlex.join(command_line(self.launch.suite_serve))

    @property
    def log_path(self) -> Path:
        """The log of the latest start. Each restart has a log of its own."""
        first = self.launch.log_path
        return first if self.starts <= 1 else first.with_suffix(f".{self.starts}.log")

    @property
    def mode(self) -> ServingMode:
        """What its log tells about the way it serves."""
        return serving_mode.read(self._log())

    @property
    def memory_mib(self) -> float | None:
        """Memory in use by the server, in MiB; None if it is not running.

        Without cards, the resident memory of its processes.
        """
        if self._process is None:
            return None
        if self._memory_before is not None and (now := self._device_memory_mib()) is not None:
            return now - self._memory_before
        with contextlib.suppress(psutil.NoSuchProcess):
            return float(sum(one.memory_info().rss for one in self.processes())) / 2**20
        return None

    @property
    def logged_memory(self) -> EngineMemory:
        """The memory that the latest start reported in its log."""
        return memory_of(self._log())

    @property
    def logged_architecture(self) -> str | None:
        """The class that serves the model, as the log of the latest start names it."""
        return architecture_of(self._log())

    @property
    def logged_milestones(self) -> tuple[str, ...]:
        """The lines in the log of the latest start that show its state; see `milestones_of`."""
        return milestones_of(self._log())

    def processes(self) -> list[psutil.Process]:
        """The server's process and all of its descendants."""
        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def engine_processes(self) -> list[psutil.Process]:
        """The processes that the API server gives requests to.

        vLLM names them `VLLM::EngineCore` where setproctitle is installed. Without names they are
        all children of the API server but Python's own helper.
        """
        if self._process is None:
            return []
        children = {one: " ".join(one.cmdline()) for one in self._main_process().children()}
        named = [one for one, title in children.items() if _ENGINE in title]
        return named or [one for one, title in children.items() if _HELPER not in title]

    def start(self) -> None:
        """Starts the server and returns when it is ready.

        Raises:
            ServerError: if the server dies or a phase takes twice its budget; the message has the
                root cause. If an earlier start has failed, the same error again.
        """
        if self._start_error is not None:
            raise self._start_error
        self.phases_seconds = {}
        self._is_ready, self._death = False, None
        self.starts += 1
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_bytes(b"")
        self._memory_before = self._device_memory_mib()
        process = SupervisedProcess(self.command(), self.log_path, self.environment())
        self._process = process.start(stdout=subprocess.PIPE)
        try:
            self._follow_phases()
            self._follow_first_image()
            self.first_start_seconds = self.first_start_seconds or self.phases_seconds
            self._is_ready = True
        except BaseException as error:
            self._start_error = error if isinstance(error, ServerError) else None
            with contextlib.suppress(ServerError):  # the first error has the cause
                self.stop()
            raise

    def stop(self) -> None:
        """Stops the server and all of its processes; returns when they have ended."""
        process, self._process = self._process, None
        if process is not None:
            self.shutdown_report = self._stop(process)

    def restart(self) -> ShutdownReport:
        """Stops the server and starts a new one at the same address; reports on the stop."""
        process, self._process = self.require_alive(), None
        self.shutdown_report = self._stop(process)
        self.start()
        return self.shutdown_report

    def kill(self) -> ShutdownReport:
        """Kills the server's main process; returns when its descendants have ended too."""
        process = self.require_alive()
        self._main_process().kill()
        self._process = None
        return self._await_shutdown(process)

    def await_end(self, seconds: float) -> ShutdownReport | None:
        """Waits for a server that ends by itself; None if it still runs after that time."""
        process = self._process or self.require_alive()  # raises if it was stopped
        try:
            process.wait(seconds + _EXIT_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        self._process = None
        return self._await_shutdown(process)

    def ensure_running(self) -> None:
        """Starts the server again after `kill`; does nothing if it is running."""
        with self._start_lock:  # the first requests to a stopped server may be a burst
            if self._process is None:
                self.start()

    def recover(self) -> None:
        """Starts the server again if it died, so that a crash in one test does not fail the next.

        Called before each test.

        Raises:
            ServerError: if no test has reported the death yet; if the server does not start; or
                if it has died three times.
        """
        if self._process is None or self._process.poll() is None:
            return
        if self._death is None:
            self.require_alive()
        if self._deaths >= _MAX_DEATHS:
            raise ServerError(
                f"the server of {self.launch.served_name} died {self._deaths} times while it "
                "served, and is not started again. Each death is reported by the test in which it "
                "occurred."
            )
        with contextlib.suppress(ServerError):  # the death is reported already
            self.stop()
        self.shutdown_report = None  # a crash is not a normal stop
        self.start()

    def _main_process(self) -> psutil.Process:
        """The API server: of the supervisor's children, which are the server and its orphans."""
        supervisor_process = psutil.Process(self.require_alive().pid)
        return min(supervisor_process.children(), key=psutil.Process.create_time)

    def _stop(self, process: subprocess.Popen[bytes]) -> ShutdownReport:
        with contextlib.suppress(BrokenPipeError):
            _pipe(process.stdin).write(b"stop")
            _pipe(process.stdin).flush()
        return self._await_shutdown(process)

    def _await_shutdown(self, process: subprocess.Popen[bytes]) -> ShutdownReport:
        """Waits for the supervisor to exit and for the cards' memory to be freed."""
        since = time.monotonic()
        timeout = supervisor.SIGTERM_TIMEOUT_SECONDS + 2 * supervisor.DESCENDANT_GRACE_SECONDS
        try:
            process.wait(timeout=timeout)
            survivors_json = _pipe(process.stdout).read()
        except subprocess.TimeoutExpired:
            raise ServerError(
                f"the server of {self.launch.served_name} did not stop within {timeout:.0f} s; "
                f"look for processes that cannot be killed (state D) and at {self.log_path}"
            ) from None
        finally:
            with contextlib.suppress(BrokenPipeError):
                _pipe(process.stdin).close()
            _pipe(process.stdout).close()
        if process.returncode < 0:
            raise ServerError(
                f"the process that watches the server of {self.launch.served_name} was ended by "
                f"{signal.Signals(-process.returncode).name}, so it is unknown which processes the "
                "server left behind. Look for them, and at the kernel's log: it may have been out "
                "of memory"
            )
        seconds = time.monotonic() - since
        survivors = tuple(json.loads(survivors_json or b"[]"))
        memory = self._settled_memory()
        return ShutdownReport(survivors, self._memory_before, memory, seconds, process.returncode)

    def _settled_memory(self) -> float | None:
        """Device memory once it is back at its level before the start, or after a timeout."""
        deadline = time.monotonic() + _MEMORY_SECONDS
        now, before = self._device_memory_mib(), self._memory_before
        while now is not None and before is not None and now > before + MEMORY_TOLERANCE_MIB:
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
            now = self._device_memory_mib()
        return now

    def explain_loss(self) -> None:
        """Raises ServerError with the root cause if a connection was lost because the server died.

        Waits for the server's last process, which ends shortly after the connection breaks.
        """
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_GRACE_SECONDS)
        self.require_alive()

    def require_alive(self) -> subprocess.Popen[bytes]:
        """The process that supervises the server.

        Raises:
            ServerError: if the server is not running; the message has the root cause.
        """
        name = self.launch.served_name
        if self._process is None:
            raise ServerError(f"the server of {name} is not running: it was stopped")
        code = self._process.poll()
        if code is None:
            return self._process
        with self._death_lock:  # concurrent requests detect the same death at the same time
            if self._death is None:
                problem = f"the server of {name} died {self._during()} ({exit_code(code)})"
                self._death = ServerError(self._post_mortem(problem))
                self._deaths += 1
        raise self._death

    def _during(self) -> str:
        return "while it served" if self._is_ready else f"in the phase '{self._phase().value}'"

    def _phase(self) -> Phase:
        """The current phase of a start: from the log, or the first image once healthy."""
        healthy = Phase.FIRST_IMAGE.value in self.phases_seconds
        return Phase.FIRST_IMAGE if healthy else phase_of(self._log())

    def _follow_phases(self) -> None:
        """Waits until `/health` returns 200; reads the phase from the log; raises if one hangs."""
        phase, since = Phase.START, time.monotonic()
        while health(self.endpoint, _HEALTH_SECONDS) != httpx.codes.OK:
            elapsed = time.monotonic() - since
            self._record_phase(phase, elapsed)
            self.require_alive()
            if elapsed > _BUDGET_FACTOR * budget_of(self.launch.budgets, phase):
                raise ServerError(self._timeout_text(phase))
            if (latest := phase_of(self._log())) is not phase:
                phase, since = latest, time.monotonic()
            time.sleep(_POLL_SECONDS)
        self._record_phase(phase, time.monotonic() - since)

    def _follow_first_image(self) -> None:
        phase, since = Phase.FIRST_IMAGE, time.monotonic()
        timeout = _BUDGET_FACTOR * budget_of(self.launch.budgets, phase)
        self._record_phase(phase, 0.0)
        try:
            with contextlib.closing(Client(self.endpoint, self.explain_loss, timeout)) as client:
                client.complete(self._first_request, Sampling(max_tokens=1))
        except ServerError as error:
            self.require_alive()
            if time.monotonic() - since >= timeout:
                raise ServerError(self._timeout_text(phase)) from error
            raise ServerError(
                self._post_mortem(
                    f"the server of {self.launch.served_name} is healthy but did not answer its "
                    f"first image request: {error}"
                )
            ) from error
        self._record_phase(phase, time.monotonic() - since)

    def _record_phase(self, phase: Phase, seconds: float) -> None:
        self.phases_seconds = {**self.phases_seconds, phase.value: seconds}
        self._on_phase(phase, seconds)

    def _log(self) -> str:
        path = self.log_path
        return path.read_text("utf-8", errors="replace") if path.is_file() else ""

    def _timeout_text(self, phase: Phase) -> str:
        budget = budget_of(self.launch.budgets, phase)
        return self._post_mortem(
            f"the server of {self.launch.served_name} was still in the phase '{phase.value}' after "
            f"{_BUDGET_FACTOR * budget:.0f} s; its budget is {budget:.0f} s (ModelSpec.budgets)"
        )

    def _post_mortem(self, problem: str) -> str:
        return post_mortem(f"{problem}.", self._log(), self.log_path)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ServerError("the supervisor was started without its pipes")
    return stream


def budget_of(budgets: Budgets, phase: Phase) -> float:
    """The seconds that a phase of a start may take."""
    return float(getattr(budgets, phase.name.lower()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
