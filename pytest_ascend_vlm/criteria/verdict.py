"""The verdict of a criterion: measured value, threshold, margin and details."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ..errors import ConfigurationError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Verdict:
    """The outcome of one criterion on one case.

    Attributes:
        passed: True if the criterion passes.
        measured: the measured value.
        threshold: the value that it is compared with.
        unit: the unit of both: "rate", "nats", "seconds", ...
        sense: "at least" if the measured value must not be below the threshold, "at most" if it
            must not be above it.
        reason: one sentence that states the finding.
        details: lines that explain a failure, most important first.
        evidence: further facts for the report, as JSON values.

    Raises:
        ConfigurationError: `details` is a text.
    """

    passed: bool
    measured: float
    threshold: float
    unit: str
    sense: Literal["at least", "at most"]
    reason: str
    details: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _refuse_text(self.details)

    def __bool__(self) -> bool:
        """Raises, so that no test takes a failed verdict for True.

        Raises:
            TypeError: always.
        """
        raise TypeError("a verdict has no truth value: use verdict.passed")

    @property
    def margin(self) -> float:
        """Distance to the threshold in the verdict's unit; negative if the criterion fails."""
        distance = self.measured - self.threshold
        return distance if self.sense == "at least" else -distance


def _refuse_text(details: object) -> None:
    if isinstance(details, str):  # would be printed as one line per letter
        raise ConfigurationError("details is a tuple of lines. Of one line: details=(line,)")


def at_least(  # noqa: PLR0913, PLR0917  (a verdict has this many fields)
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


def largest(items: Iterable[_T], error: Callable[[_T], float]) -> _T:
    """The item with the largest error, to be judged for all. NaN is larger than any number."""
    return max(items, key=lambda item: (math.isnan(error(item)), error(item)))


def checklist(
    checks: Mapping[str, str | None], evidence: Mapping[str, Any] | None = None
) -> Verdict:
    """The verdict on a list of checks.

    Args:
        checks: name of each check -> its problem, or None if it passes.
        evidence: further facts for the report, as JSON values.

    Raises:
        ConfigurationError: there are no checks.
    """
    if not checks:
        raise ConfigurationError("checklist() got no checks, so it cannot give a verdict.")
    failed = {name: problem for name, problem in checks.items() if problem is not None}
    reason = (
        f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}"
        if failed
        else f"all {len(checks)} checks passed"
    )
    details = tuple(f"{name}: {problem}" for name, problem in failed.items())
    return at_least(
        (len(checks) - len(failed)) / len(checks),
        1.0,
        "rate",
        reason,
        details,
        {
            "checks": {name: problem or "holds" for name, problem in checks.items()},
            **(evidence or {}),
        },
    )
