"""The report's rows: one per criterion and case."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..criteria.verdict import Verdict

STATUSES = ("fail", "error", "pass", "xfail", "skip", "na", "recorded")
"""Pass and fail are verdicts about the model, xfail is a failure that was declared; error is about
the set-up; na is declared not to apply; skip could not run; recorded wrote a reference."""

HOLDS = frozenset({"pass", "xfail", "na"})
"""The statuses that leave a gate open: a pass, and what was declared not to be one."""


@dataclass(frozen=True)
class Row:
    """One line of evidence.

    Attributes:
        model: the model's id.
        suite_class: the test class; variants of one model are told apart by it.
        criterion: the criterion's id.
        case: the case or parameter, or None.
        status: one of `STATUSES`.
        reason: why it is not a pass; empty for a pass.
        seconds: how long the test took, without starting the server.
    """

    model: str
    suite_class: str
    criterion: str
    case: str | None
    status: str
    reason: str
    seconds: float

    def with_verdict(self, verdict: Verdict | None) -> dict[str, Any]:
        """The row as JSON, with what was measured where there is a verdict."""
        measured: dict[str, Any] = dict.fromkeys(
            ("measured", "threshold", "sense", "unit", "margin")
        )
        if verdict is not None:
            measured = {
                "measured": verdict.measured,
                "threshold": verdict.threshold,
                "sense": verdict.sense,
                "unit": verdict.unit,
                "margin": verdict.margin,
                "finding": verdict.reason,
                "evidence": verdict.evidence,
            }
        row = {**dataclasses.asdict(self), **measured, "seconds": round(self.seconds, 3)}
        document: dict[str, Any] = as_json(row)
        return document


def as_json(value: Any) -> Any:
    """A value in JSON's own types: numbers that JSON has not (NaN, infinity) become their names."""
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
