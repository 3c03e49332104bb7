"""The groups of criteria. Selection, gate, summary, command line and reports read this table.

To add a group, add an entry to `GROUPS`, and a marker to `MARKERS` unless it shares one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MARKER = "vlm_criterion"
"""The pytest marker that holds a test's `Criterion`."""

MARKERS: Mapping[str, str] = {
    "npu": "needs the served model on an Ascend NPU (or on the platform that --vlm-platform names)",
    "cpu_baseline": "replays the reference engine on CPU; runs only if -m names it",
    "serving": "the endpoint conforms to the API",
    "determinism(runs=3)": "equal requests get equal answers; a test of your own that returns a "
    "completion runs N times, and its answers are compared",
    "accuracy": "answers against the reference and the ground truth",
    "numerics": "logits and hidden states against the reference",
    "performance": "latency, throughput, CPU usage; runs only if -m names it, and without -n",
    "ladder": "answers to up to 256 requests at once; runs only if -m names it",
    "grid": "speed by image size and number of requests; runs only if -m names it, and without -n",
    "soak": "memory and answers over many images; runs only if -m names it, and without -n",
    "dataset": "scores of evaluation harnesses; runs only if -m names it",
    "robustness": "limits, bad input, and a clean shutdown of the server",
    f"{MARKER}(criterion)": "the criterion that a test of the suite judges; set by the suite",
}
"""Marker, as pytest registers it -> its meaning."""


@dataclass(frozen=True)
class Group:
    """A group of criteria.

    Attributes:
        name: the part of a criterion's id before the dot.
        marker: the pytest marker of its tests.
        is_opt_in: True if its tests run only if `-m` names the marker.
        needs_server: True if it judges the served model; otherwise it runs on this host's CPU, on
            every platform.
        runs_alone: True if parallel test processes would disturb its measurements.
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
        # Opt-in, because it sends thousands of requests.
        Group("ladder", "ladder", is_opt_in=True),
        Group("parameters", "serving"),
        # Other tests on the host would change the measured speed.
        Group("performance", "performance", is_opt_in=True, runs_alone=True),
        Group("grid", "grid", is_opt_in=True, runs_alone=True),
        Group("recovery", "robustness"),
        # Memory of the host that is shared with other servers would be counted to this one.
        Group("growth", "soak", is_opt_in=True, runs_alone=True),
        Group("lifecycle", "robustness"),
        Group("dataset", "dataset", is_opt_in=True),
        Group("numerics", "numerics"),
        Group("equivalence", "numerics"),
        # Opt-in, because the reference engine is slow.
        Group("reference", "cpu_baseline", is_opt_in=True, needs_server=False),
    )
}
"""Group name -> group."""

OWN_GROUP = "own"
"""The group of a user's own tests that use `judge`; they may judge without a served model."""

OPT_IN_MARKERS = tuple(group.marker for group in GROUPS.values() if group.is_opt_in)
"""The markers of tests that run only if `-m` names them."""

GATE_LIST_MARKERS = tuple(
    group.marker for group in GROUPS.values() if group.is_opt_in and group.needs_server
)
"""The markers whose criteria are on a separate gate list."""


def group_name(criterion_id: str) -> str:
    """The group of a criterion: "serving" for "serving.text"."""
    return criterion_id.partition(".")[0]


def needs_server(criterion_id: str) -> bool:
    """True if a criterion judges the served model, or if its group is unknown."""
    group = GROUPS.get(group_name(criterion_id))
    return group is None or group.needs_server
