"""Where the evidence of a report came from, told from what was verified.

A run for an NPU may have replayed the reference on a CPU, skipped everything, or failed to start a
server: none of that is an NPU result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .summary import group_of

ORIGINS = (
    "npu",
    "npu, nothing verified",
    "simulated",
    "cuda",
    "cpu",
    "endpoint",
    "reference",
    "nothing",
)

_NOT_SERVED = frozenset({"reference"})
_NOT_SURELY_SERVED = frozenset({"reference", "own"})
"""A user's own test may judge without a served model, so alone it is no NPU result."""


def origin(receipt: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """One of `ORIGINS`.

    "npu" needs a criterion that passed on a real NPU. "reference" is the CPU reference alone,
    replayed or recorded; "nothing" is a run without a verdict.

    Args:
        receipt: "platform" and "simulated" of the run.
        rows: the report's rows.
    """
    apart = _NOT_SURELY_SERVED if receipt["platform"] == "npu" else _NOT_SERVED
    served = {row["status"] for row in rows if group_of(row) not in apart}
    if not served & {"pass", "fail", "xfail"}:
        ran = {row["status"] for row in rows if group_of(row) == "reference"}
        return "reference" if ran & {"pass", "fail", "recorded"} else "nothing"
    if receipt["simulated"]:
        return "simulated"
    if receipt["platform"] == "npu" and "pass" not in served:
        return "npu, nothing verified"
    return str(receipt["platform"])
