"""The cores and the memory nodes of this host."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
NODES = Path("/sys/devices/system/node")


def physical_cores() -> int:
    """Number of physical cores that this process may use."""
    import psutil

    if sys.platform != "linux":
        return psutil.cpu_count(logical=False) or 1
    allowed = os.sched_getaffinity(0)
    try:
        return len({Path(SIBLINGS.format(cpu)).read_text("ascii") for cpu in allowed})
    except OSError:  # a sandbox may hide /sys
        return min(len(allowed), psutil.cpu_count(logical=False) or len(allowed))


def memory_nodes() -> int:
    """Number of nodes (NUMA) that the memory of this host belongs to; 1 if it is unknown."""
    return len([*NODES.glob("node[0-9]*")]) or 1
