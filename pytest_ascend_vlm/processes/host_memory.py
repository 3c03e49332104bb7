"""Host memory of processes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

import psutil

# Without swapped pages, a leak on a host that swaps would look like none.
_SHARES = re.compile(r"^(?:Pss|SwapPss): +(\d+) kB$", re.MULTILINE)


def memory_by_process(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """Name and pid of each process that is running -> its memory in MiB.

    A page that several processes share counts once in their sum (PSS). If the kernel does not tell
    PSS, the value is the resident memory (RSS).
    """
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found[f"{process.name()} {process.pid}"] = _kib(process) / 2**10
    return found


def _kib(process: psutil.Process) -> float:
    with contextlib.suppress(OSError):
        told = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii")
        if shares := _SHARES.findall(told):
            return float(sum(map(int, shares)))
    return float(process.memory_info().rss) / 2**10
