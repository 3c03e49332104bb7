"""What does a server leave behind when it ends?"""

from __future__ import annotations

from ..observation.shutdown import ShutdownReport
from ..spec.thresholds import MEMORY_TOLERANCE_MIB
from .verdict import Verdict, checklist


def judge_shutdown(remains: ShutdownReport) -> Verdict:
    """No process outlived the server, and its cards' memory is back at its level before.

    Args:
        remains: what was found after the server ended; where device memory cannot be told (a CPU),
            only processes are judged and the evidence says so.
    """
    before, after = remains.memory_before_mib, remains.memory_after_mib
    checks = {"every process ended": ", ".join(remains.outlived) or None}
    if before is not None and after is not None:
        held = after - before
        problem = f"{held:.0f} MiB more than before ({before:.0f} MiB) are still in use"
        checks["device memory is back"] = problem if held > MEMORY_TOLERANCE_MIB else None
    return checklist(
        checks,
        {
            "outlived": list(remains.outlived),
            "memory_before_mib": before,
            "memory_after_mib": after,
            "seconds": round(remains.seconds, 2),
        },
    )
