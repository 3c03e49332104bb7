"""Where the evidence of a report came from, told from what was verified.

A run for an NPU may have replayed the reference on a CPU, skipped everything, or failed to start a
server: none of that is an NPU result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..criteria.groups import OWN_GROUP, group_name, needs_server


def origin(receipt: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The platform, where something was verified on it; else what the run was.

    "npu" needs a criterion that passed on a real NPU; without one it is "npu, nothing verified".
    "simulated" is an NPU that was not there. "reference" is the CPU reference alone, replayed or
    recorded; "nothing" is a run without a verdict.

    Args:
        receipt: "platform" and "simulated" of the run.
        rows: the report's rows.
    """
    # A user's own test may judge without a served model, so alone it is no NPU result.
    counts_own = receipt["platform"] != "npu"
    served = {
        row["status"]
        for row in rows
        if needs_server(row["criterion"])
        and (counts_own or group_name(row["criterion"]) != OWN_GROUP)
    }
    if not served & {"pass", "fail", "xfail"}:
        ran = {row["status"] for row in rows if not needs_server(row["criterion"])}
        return "reference" if ran & {"pass", "fail", "recorded"} else "nothing"
    if receipt["simulated"]:
        return "simulated"
    if receipt["platform"] == "npu" and "pass" not in served:
        return "npu, nothing verified"
    return str(receipt["platform"])
