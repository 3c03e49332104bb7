"""The groups of criteria: one table, which selection, gate, summary, command line and reports read.

A new group is one entry of `GROUPS`, and a marker in `MARKERS` unless it shares one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MARKER = "vlm_criterion"
"""The pytest marker that holds a test's `Criterion`."""

MARKERS: Mapping[str, str] = {
    "npu": "needs the served model on an Ascend NPU (or on the platform that --vlm-platform names)",
    "cpu_baseline": "replays the reference engine on CPU; runs only where -m names it",
    "serving": "the endpoint keeps the promises of the API",
    "determinism(runs=3)": "equal requests get equal answers; a test of your own that returns a "
    "completion is run that often and its answers compared",
    "accuracy": "answers against the reference and the ground truth",
    "numerics": "numbers against the reference",
    "performance": "latency, throughput, CPU usage; runs only where -m names it, and without -n",
    "dataset": "scores of evaluation harnesses; runs only where -m names it",
    "robustness": "limits, bad input, and what a server leaves behind",
    f"{MARKER}(criterion)": "the criterion that a test of the suite judges; set by the suite",
}
"""Every marker of the plugin, as pytest registers it, with its meaning."""


@dataclass(frozen=True)
class Group:
    """A group of criteria.

    Attributes:
        name: the part of a criterion's id before the dot.
        marker: the pytest marker of its tests.
        is_opt_in: whether its tests run only where `-m` names the marker.
        needs_server: whether it judges the served model; if not, it runs on this CPU, wherever
            models are served.
        runs_alone: whether its tests would disturb each other in parallel processes.
    """

    name: str
    marker: str
    is_opt_in: bool = False
    needs_server: bool = True
    runs_alone: bool = False


GROUPS: Mapping[str, Group] = {
    group.name: group
    for group in (
        Group("serving", "serving"),
        Group("baseline", "accuracy"),
        Group("document", "accuracy"),
        Group("tasks", "accuracy"),
        Group("determinism", "determinism"),
        # Speed is measured on a host that does nothing else.
        Group("performance", "performance", is_opt_in=True, runs_alone=True),
        Group("lifecycle", "robustness"),
        Group("dataset", "dataset", is_opt_in=True),
        Group("numerics", "numerics"),
        Group("equivalence", "numerics"),
        # The reference engine is slow.
        Group("reference", "cpu_baseline", is_opt_in=True, needs_server=False),
    )
}
"""Group name -> group."""

OWN_GROUP = "own"
"""The group of a user's own tests that judge; they may do so without a served model."""

OPT_IN_MARKERS = tuple(group.marker for group in GROUPS.values() if group.is_opt_in)
"""The markers of tests that run only where `-m` names them."""

GATE_LIST_MARKERS = tuple(
    group.marker for group in GROUPS.values() if group.is_opt_in and group.needs_server
)
"""The markers whose criteria have a gate's list of their own."""


def group_name(criterion_id: str) -> str:
    """The group of a criterion: "serving" of "serving.text"."""
    return criterion_id.partition(".")[0]


def needs_server(criterion_id: str) -> bool:
    """Whether a criterion judges the served model, as far as its group tells."""
    group = GROUPS.get(group_name(criterion_id))
    return group is None or group.needs_server
