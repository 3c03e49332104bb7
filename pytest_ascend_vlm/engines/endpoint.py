"""The address of an OpenAI-compatible server, and the interface of a server to the suite."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from ..errors import ServerError
from ..observation.memory import EngineMemory
from ..observation.serving_mode import ServingMode
from ..observation.shutdown import ShutdownReport
from .address import is_loopback


@dataclass(frozen=True)
class Endpoint:
    """The address of a server.

    Attributes:
        url: e.g. `http://127.0.0.1:8000`, without a trailing `/v1`.
        served_name: the model name in requests.
        api_key: the bearer token; no message shows it.
    """

    url: str
    served_name: str
    api_key: str = field(repr=False)

    @property
    def is_local(self) -> bool:
        """True if the server is on this host. Requests to this host must not use a proxy."""
        return is_loopback(self.url)

    @property
    def certificates(self) -> ssl.SSLContext | bool:
        """The argument `verify` of a client: no certificates for http on this host.

        Loading them takes longer than a small request. Elsewhere http may redirect to https.
        """
        is_plain = self.is_local and self.url.startswith("http:")
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else True


class Server(Protocol):
    """The interface of a server to the suite.

    Attributes:
        endpoint: its address; a restart keeps it.
        phases_seconds: start phase -> seconds, for the latest start; empty if the suite did not
            start it.
        first_start_seconds: the same for the first start.
        starts: how often the suite started it.
        can_restart: True if `restart`, `kill` and `await_end` may be called.
        shutdown_report: survivors and memory after its latest stop; None before the first stop.
    """

    endpoint: Endpoint
    phases_seconds: Mapping[str, float]
    first_start_seconds: Mapping[str, float]
    starts: int
    can_restart: bool
    shutdown_report: ShutdownReport | None

    @property
    def serve_command(self) -> str:
        """The command line that serves the model, for the report."""

    @property
    def suite_arguments(self) -> str:
        """The arguments that the suite added to this command line for its measurements."""

    @property
    def memory_mib(self) -> float | None:
        """Memory used by the server in MiB; None if it cannot be measured."""

    @property
    def mode(self) -> ServingMode:
        """What it tells about the way it serves."""

    @property
    def logged_memory(self) -> EngineMemory:
        """The memory that the server reports for itself in the log of its latest start."""

    @property
    def logged_architecture(self) -> str | None:
        """The class that serves the model, as the log names it; None if it is unknown."""

    @property
    def logged_milestones(self) -> tuple[str, ...]:
        """Lines of its log: graphs captured, ready, graphs replayed; empty if it is not visible."""

    def processes(self) -> list[psutil.Process]:
        """Its processes on this host; empty if they are not visible or it is not running."""

    def engine_processes(self) -> list[psutil.Process]:
        """Those that compute, and to which the API server gives requests; empty as above."""

    def start(self) -> None:
        """Starts the server and returns when it is ready."""

    def stop(self) -> None:
        """Stops the server and returns when all of its processes have ended."""

    def restart(self) -> ShutdownReport:
        """Stops the server and starts a new one at the same address; reports on the stop."""

    def kill(self) -> ShutdownReport:
        """Kills the server's main process, as the kernel does when memory runs out."""

    def await_end(self, seconds: float) -> ShutdownReport | None:
        """Waits for a server that ends by itself; None if it still runs after that time."""

    def ensure_running(self) -> None:
        """Starts the server again after its end; does nothing if it is running."""

    def recover(self) -> None:
        """Starts the server again if it died during an earlier test; called before each test."""

    def explain_loss(self) -> None:
        """Raises ServerError with the reason for a lost connection, if the reason is known."""


class RunningServer:
    """A server that the suite did not start and must not stop."""

    can_restart = False
    starts = 0
    serve_command = "(not started by the suite)"
    suite_arguments = ""
    memory_mib: float | None = None
    logged_memory = EngineMemory()
    logged_architecture: str | None = None
    logged_milestones: tuple[str, ...] = ()
    shutdown_report: ShutdownReport | None = None
    mode = ServingMode()

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.phases_seconds: Mapping[str, float] = {}
        self.first_start_seconds: Mapping[str, float] = {}

    def processes(self) -> list[psutil.Process]:
        """Returns none: they are not visible to the suite."""
        return []

    def engine_processes(self) -> list[psutil.Process]:
        """Returns none: they are not visible to the suite."""
        return []

    def start(self) -> None:
        """Does nothing: the server is running."""

    def stop(self) -> None:
        """Does nothing: the suite must not stop the server."""

    def restart(self) -> ShutdownReport:
        """Raises ServerError."""
        raise ServerError("the suite cannot restart an endpoint that it did not start")

    def kill(self) -> ShutdownReport:
        """Raises ServerError."""
        raise ServerError("the suite cannot kill an endpoint that it did not start")

    def await_end(self, seconds: float) -> ShutdownReport | None:  # noqa: ARG002
        """Raises ServerError."""
        raise ServerError("the suite cannot see the end of an endpoint that it did not start")

    def ensure_running(self) -> None:
        """Does nothing: the suite never kills the server."""

    def recover(self) -> None:
        """Does nothing: the suite must not start the server."""

    def explain_loss(self) -> None:
        """Does nothing: the suite does not have the server's log."""
