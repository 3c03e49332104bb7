"""What a server leaves behind."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShutdownReport:
    """What a server that ended would have left behind.

    Attributes:
        survivors: its processes that did not end with it and had to be killed, in words.
        memory_before_mib: device memory in use before it started, None where that cannot be told.
        memory_after_mib: the same after it ended.
        seconds: from the order to end to the end of the last process.
    """

    survivors: tuple[str, ...]
    memory_before_mib: float | None
    memory_after_mib: float | None
    seconds: float
