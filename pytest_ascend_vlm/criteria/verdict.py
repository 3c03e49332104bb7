"""What a criterion concludes: the measured value, the bar, the margin, and what to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    """The outcome of one criterion on one case.

    Attributes:
        passed: whether the criterion holds.
        measured: the value found.
        threshold: the bar it was held against.
        unit: what both are counted in: "rate", "nats", "seconds", ...
        sense: whether the measured value must be at least or at most the threshold.
        reason: one sentence that says what was found.
        details: lines for a reader of a failure, most important first.
        evidence: JSON-able facts for the report.
    """

    passed: bool
    measured: float
    threshold: float
    unit: str
    sense: Literal["at least", "at most"]
    reason: str
    details: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Refuses: a verdict that fails is no False.

        Raises:
            TypeError: always.
        """
        raise TypeError("a verdict has no truth value: ask for verdict.passed")

    @property
    def margin(self) -> float:
        """Distance to the bar in the verdict's unit; negative is on the wrong side of it."""
        distance = self.measured - self.threshold
        return distance if self.sense == "at least" else -distance


def at_least(  # noqa: PLR0913, PLR0917  (a verdict is this many facts)
    measured: float,
    threshold: float,
    unit: str,
    reason: str,
    details: tuple[str, ...] = (),
    evidence: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict "measured >= threshold". NaN never passes."""
    passed = measured >= threshold
    return Verdict(passed, measured, threshold, unit, "at least", reason, details, evidence or {})


def at_most(  # noqa: PLR0913, PLR0917
    measured: float,
    threshold: float,
    unit: str,
    reason: str,
    details: tuple[str, ...] = (),
    evidence: Mapping[str, Any] | None = None,
) -> Verdict:
    """The verdict "measured <= threshold". NaN never passes."""
    passed = measured <= threshold
    return Verdict(passed, measured, threshold, unit, "at most", reason, details, evidence or {})


def checklist(
    checks: Mapping[str, str | None], evidence: Mapping[str, Any] | None = None
) -> Verdict:
    """The verdict of a list of checks: name -> what is wrong, or None where it holds."""
    broken = {name: problem for name, problem in checks.items() if problem is not None}
    held = len(checks) - len(broken)
    reason = (
        f"all {len(checks)} checks hold"
        if not broken
        else f"{len(broken)} of {len(checks)} checks do not hold: {', '.join(broken)}"
    )
    details = tuple(f"{name}: {problem}" for name, problem in broken.items())
    return at_least(
        held / len(checks),
        1.0,
        "rate",
        reason,
        details,
        {
            "checks": {name: problem or "holds" for name, problem in checks.items()},
            **(evidence or {}),
        },
    )
