"""The receipt of a run (platform, device, versions), and the shortfalls of its gate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .. import gate
from ..session.run import Run
from ..versions import installed_versions


def receipt(run: Run, argv: list[str]) -> dict[str, Any]:
    """The receipt for the report: platform, device, versions, duration, arguments and date."""
    own = {"seconds": round(run.seconds, 1), "argv": argv}
    return {
        "platform": run.options.platform,
        "checkpoint": run.options.checkpoint,
        "simulated": run.platform.simulated,
        "device": run.platform.device(),
        "versions": {
            **installed_versions("pytest-ascend-vlm", "pytest"),
            **run.platform.versions(),
        },
        "serve_overrides": dict(run.options.serve_overrides),
        **own,
        "runs": [{**own, "date": run.started.isoformat(timespec="milliseconds")}],
    }


def where(run: Run) -> str:
    """The platform and the checkpoint for the closing line; only an NPU is called "the NPU"."""
    return f"{run.platform.label} ({run.options.checkpoint} checkpoint)"


def gate_shortfalls(
    run: Run, rows: Sequence[Mapping[str, Any]], deselected: Collection[gate.Pair]
) -> list[str]:
    """The shortfalls of the gate, one line each; empty if it passes or the run is no gate."""
    required = run.options.required
    if required is None:
        return []
    tiny = run.options.checkpoint == "tiny"
    missing = gate.shortfalls(required, rows, deselected, may_lack_checkpoints=tiny)
    if run.platform.simulated:
        missing.append("the cards are simulated, and a simulated run never passes the gate")
    return missing
