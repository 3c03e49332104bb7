"""Rules of lifecycle.*: a server that ends leaves no process and no device memory behind."""

from __future__ import annotations

from ..observation.shutdown import ShutdownReport
from ..spec.thresholds import MEMORY_TOLERANCE_MIB
from .verdict import Verdict, checklist


def judge_shutdown(report: ShutdownReport) -> Verdict:
    """No process of the server survived, and device memory is back at its level before the start.

    Args:
        report: the state after the server ended. If device memory is unknown (on a CPU), only the
            processes are judged.
    """
    return checklist(
        shutdown_checks(report),
        {
            "outlived": list(report.survivors),
            "memory_before_mib": report.memory_before_mib,
            "memory_after_mib": report.memory_after_mib,
            "seconds": round(report.seconds, 2),
        },
    )


def shutdown_checks(report: ShutdownReport) -> dict[str, str | None]:
    """The checks of a server's end: name -> problem, or None."""
    before, after = report.memory_before_mib, report.memory_after_mib
    checks: dict[str, str | None] = {"every process ended": ", ".join(report.survivors) or None}
    if before is not None and after is not None:
        kept = after - before
        problem = (
            f"{after:.0f} MiB are in use, {kept:.0f} MiB more than before the start "
            f"({before:.0f} MiB); at most {MEMORY_TOLERANCE_MIB:g} MiB more is allowed"
        )
        checks["device memory is back"] = problem if kept > MEMORY_TOLERANCE_MIB else None
    return checks
