"""What was run where, and what a gate misses of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .. import gate
from ..session.run import Run
from ..versions import installed_versions


def receipt(run: Run, argv: list[str]) -> dict[str, Any]:
    """What was run where, for the report."""
    return {
        "platform": run.options.platform,
        "checkpoint": run.options.checkpoint,
        "simulated": run.platform.simulated,
        "device": run.platform.device(),
        "versions": {
            **installed_versions("pytest-ascend-vlm", "pytest"),
            **run.platform.versions(),
        },
        "seconds": round(run.seconds, 1),
        "argv": argv,
    }


def where(run: Run) -> str:
    """Where models were served, in words that cannot be mistaken for an NPU."""
    return f"{run.platform.label} ({run.options.checkpoint} checkpoint)"


def gate_shortfalls(
    run: Run, rows: Sequence[Mapping[str, Any]], deselected: Collection[gate.Pair]
) -> list[str]:
    """What a gate misses, in words; empty where it is green or the run is none."""
    required = run.options.required
    if required is None:
        return []
    tiny = run.options.checkpoint == "tiny"
    missing = gate.shortfalls(required, rows, deselected, may_lack_checkpoints=tiny)
    if run.platform.simulated:
        missing.append("the cards are simulated, and a simulation opens no gate")
    return missing
