"""The time that this thread was ready to run and had no CPU."""

from __future__ import annotations

from pathlib import Path

_SCHEDSTAT = Path("/proc/thread-self/schedstat")


def cpu_wait_seconds() -> float:
    """Seconds that this thread has waited for a CPU so far; 0 if the kernel does not count them."""
    try:
        return int(_SCHEDSTAT.read_text("ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
