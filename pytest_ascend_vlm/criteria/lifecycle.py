"""What does a server leave behind when it ends?"""

from __future__ import annotations

from ..observation.shutdown import ShutdownReport
from ..spec.thresholds import MEMORY_TOLERANCE_MIB
from .verdict import Verdict, checklist


def judge_shutdown(report: ShutdownReport) -> Verdict:
    """No process outlived the server, and its cards' memory is back at its level before.

    Args:
        report: what was found after the server ended; where device memory cannot be told (a CPU),
            only processes are judged and the evidence says so.
    """
    before, after = report.memory_before_mib, report.memory_after_mib
    checks = {"every process ended": ", ".join(report.survivors) or None}
    if before is not None and after is not None:
        held = after - before
        problem = f"{held:.0f} MiB more than before ({before:.0f} MiB) are still in use"
        checks["device memory is back"] = problem if held > MEMORY_TOLERANCE_MIB else None
    return checklist(
        checks,
        {
            "outlived": list(report.survivors),
            "memory_before_mib": before,
            "memory_after_mib": after,
            "seconds": round(report.seconds, 2),
        },
    )
