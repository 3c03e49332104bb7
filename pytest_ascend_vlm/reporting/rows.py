"""The rows of the report: one per criterion and case."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..criteria.verdict import Verdict

STATUSES = ("fail", "error", "pass", "xfail", "skip", "na", "recorded")
"""The statuses of a row, worst first.

fail and pass are verdicts about the model. xfail is a failure that was declared as expected. error
is a problem of the set-up. skip could not run here. na is not applicable. recorded wrote a golden.
"""

ACCEPTED = frozenset({"pass", "xfail", "na"})
"""The statuses that a gate accepts: passed, declared as expected to fail, or not applicable."""


@dataclass(frozen=True)
class Row:
    """The result of one criterion on one case.

    Attributes:
        model: the model's id.
        suite_class: the test class; it distinguishes two declarations of one model.
        criterion: the criterion's id.
        case: the case or other parameter, or None.
        status: one of `STATUSES`.
        reason: reason why the status is not a pass; for a recorded golden, the doubts about it.
        seconds: duration of the test without the start of the server.
        told_at: the criterion, with its case, of the row that contains this error in full; None
            if this row does.
        reference_knows: False if the row is not applicable because the reference does not know the
            answer. The model file does not declare this, so such rows alone do not pass a gate.
    """

    model: str
    suite_class: str
    criterion: str
    case: str | None
    status: str
    reason: str
    seconds: float
    told_at: str | None = None
    reference_knows: bool = True

    def with_verdict(self, verdict: Verdict | None) -> dict[str, Any]:
        """The row as JSON, with the measured value and threshold if there is a verdict."""
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


def name_of(criterion: str, case: str | None) -> str:
    """The name of a criterion with its case: `baseline.text[text/capital]`."""
    return f"{criterion}[{case}]" if case else criterion


def as_json(value: Any) -> Any:
    """Converts a value to JSON types; NaN and infinity, which JSON lacks, become strings."""
    if isinstance(value, Mapping):
        return {str(name): as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)
