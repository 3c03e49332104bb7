"""Where an OpenAI-compatible server listens, whoever started it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from ..errors import ServerError
from ..observation.shutdown import ShutdownReport
from .address import is_loopback


@dataclass(frozen=True)
class Endpoint:
    """Address of a server.

    Attributes:
        url: `http://127.0.0.1:8000`, without a trailing `/v1`.
        served_name: the model name that requests carry.
        api_key: the bearer token; never shown.
    """

    url: str
    served_name: str
    api_key: str = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this host, where a proxy of the environment has no business."""
        return is_loopback(self.url)


class Server(Protocol):
    """A server as the suite sees it.

    Attributes:
        endpoint: where it listens; a restart keeps it.
        phases_seconds: start phase -> seconds, of the latest start; empty where someone else
            started it.
        first_start_seconds: the same of the first start.
        starts: how often we started it.
        can_restart: whether `restart` and `kill` may be called.
        shutdown_report: what its latest stop left behind; None before the first.
    """

    endpoint: Endpoint
    phases_seconds: Mapping[str, float]
    first_start_seconds: Mapping[str, float]
    starts: int
    can_restart: bool
    shutdown_report: ShutdownReport | None

    @property
    def serve_command(self) -> str:
        """The command that serves the model, for the report."""

    @property
    def suite_arguments(self) -> str:
        """What the suite added to it to see what it judges."""

    @property
    def memory_mib(self) -> float | None:
        """Memory the server's processes hold; None where that cannot be told."""

    def processes(self) -> list[psutil.Process]:
        """Its processes on this host; none where they cannot be seen or it is not running."""

    def start(self) -> None:
        """Starts it and returns when it is ready."""

    def stop(self) -> None:
        """Stops it and returns when nothing of it is left."""

    def restart(self) -> ShutdownReport:
        """Replaces it by a fresh one at the same address; returns what the old one left."""

    def kill(self) -> ShutdownReport:
        """Kills its leading process, as the kernel does when memory runs out."""

    def ensure_running(self) -> None:
        """Starts it again after `kill`; does nothing to one that runs."""

    def recover(self) -> None:
        """Before a test: starts it again if it died during an earlier one."""

    def explain_loss(self) -> None:
        """Raises ServerError that says why the connection was lost, if that can be told."""


class RunningServer:
    """A server that someone else started and will stop."""

    can_restart = False
    starts = 0
    serve_command = "(started by someone else)"
    suite_arguments = ""
    memory_mib: float | None = None
    shutdown_report: ShutdownReport | None = None

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.phases_seconds: Mapping[str, float] = {}
        self.first_start_seconds: Mapping[str, float] = {}

    def processes(self) -> list[psutil.Process]:
        """None that could be seen."""
        return []

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def restart(self) -> ShutdownReport:
        """Not ours to restart."""
        raise ServerError("an endpoint that someone else runs cannot be restarted")

    def kill(self) -> ShutdownReport:
        """Not ours to kill."""
        raise ServerError("an endpoint that someone else runs cannot be killed")

    def ensure_running(self) -> None:
        """It was not killed."""

    def recover(self) -> None:
        """Not ours to start."""

    def explain_loss(self) -> None:
        """Its log is someone else's."""
