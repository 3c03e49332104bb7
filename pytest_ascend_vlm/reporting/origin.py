"""Determines where the verdicts of a report come from, from its rows.

The platform option does not decide this. A run for an NPU may have replayed the reference on a CPU,
skipped all criteria, or failed to start a server; none of these is an NPU result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..criteria.groups import OWN_GROUP, group_name, needs_server


def origin(receipt: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The origin of a report: the platform, if something was verified on it.

    "npu" requires a criterion that passed on a real NPU; without one the origin is "npu, nothing
    verified". "simulated" means that the NPU was simulated. "reference" means that only the CPU
    reference was replayed or recorded. "nothing" means that there is no verdict.

    Args:
        receipt: "platform" and "simulated" of the run.
        rows: the report's rows.
    """
    # A user's own test may judge without a served model, so it does not prove an NPU result.
    includes_own = receipt["platform"] != "npu"
    served = {
        row["status"]
        for row in rows
        if needs_server(row["criterion"])
        and (includes_own or group_name(row["criterion"]) != OWN_GROUP)
    }
    if not served & {"pass", "fail", "xfail"}:
        ran = {row["status"] for row in rows if not needs_server(row["criterion"])}
        return "reference" if ran & {"pass", "fail", "recorded"} else "nothing"
    if receipt["simulated"]:
        return "simulated"
    if receipt["platform"] == "npu" and "pass" not in served:
        return "npu, nothing verified"
    return str(receipt["platform"])


def with_origin(report: Mapping[str, Any]) -> dict[str, Any]:
    """The receipt of a report. The rows decide its origin, whatever the file says."""
    receipt = report["receipt"]
    return {**receipt, "origin": origin(receipt, report["rows"])}
