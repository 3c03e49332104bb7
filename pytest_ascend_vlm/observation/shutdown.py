"""The state of processes and device memory after a server's end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShutdownReport:
    """Survivors and device memory after a server's end.

    Attributes:
        survivors: descriptions of the server's processes that survived it and were killed.
        memory_before_mib: device memory in use before the server's start; None if unknown.
        memory_after_mib: device memory in use after the server's end; None if unknown.
        seconds: time from the stop signal to the end of the last process.
        exit_code: the server's exit code, 128 + the signal if a signal ended it.
    """

    survivors: tuple[str, ...]
    memory_before_mib: float | None
    memory_after_mib: float | None
    seconds: float
    exit_code: int | None = None
