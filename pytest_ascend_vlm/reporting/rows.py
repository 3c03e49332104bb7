"""The rows of the report: one per criterion and case."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..criteria.verdict import Verdict
from ..rounding import rounded

STATUSES = ("fail", "error", "pass", "xfail", "skip", "na", "recorded")
"""The statuses of a row, worst first.

fail and pass are verdicts about the model. xfail is a failure that was declared as expected. error
is a problem of the set-up. skip could not run here. na is not applicable. recorded wrote a golden.
"""

ACCEPTED = frozenset({"pass", "xfail", "na"})
"""The statuses that a gate accepts: passed, declared as expected to fail, or not applicable."""

VERDICTS = frozenset({"pass", "fail", "xfail"})
"""The statuses of a row that was judged."""

TAKEN_OVER = "taken_over"
"""The field of a row that names the run which judged it, if that is not the run itself."""

Key = tuple[str, str, str, str | None]
"""Model, test class, criterion and case: the identity of a test in every run."""


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


def in_place(row: Mapping[str, Any], sort_key: Sequence[int]) -> dict[str, Any]:
    """A row with its places in its class, which a merged report sorts by.

    Args:
        row: the row.
        sort_key: the key of its test: the place of the class in the run, then those in the class.
    """
    return {**row, "order": [*sort_key[1:]]} if sort_key else {**row}


def name_of(criterion: str, case: str | None) -> str:
    """The name of a criterion with its case: `baseline.text[text/capital]`."""
    return f"{criterion}[{case}]" if case else criterion


def row_ids(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The id of each row: "TestQwen3VL8B::baseline.image[document/page-01]".

    A test with several verdicts has several rows; the second one ends with "~2".
    """
    seen: Counter[str] = Counter()
    for row in rows:
        name = f"{row['suite_class']}::{name_of(row['criterion'], row['case'])}"
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}~{seen[name]}"


def address(row_id: str) -> str:
    """A row's id as the part of an address behind "report.html#"."""
    return quote(row_id.encode("utf-8", "replace"), safe="")


def in_one_line(text: str, told_at: str) -> str:
    """The headline of an error, and the place that has it in full."""
    headline = text.partition("\n")[0].rstrip(".")
    return f"{headline}; in full at {told_at}"


def grouped(rows: Iterable[dict[str, Any]]) -> dict[Key, list[dict[str, Any]]]:
    """The rows of each test, in their order; a test has one row for each of its verdicts."""
    found: dict[Key, list[dict[str, Any]]] = {}
    for row in rows:
        key = (row["model"], row["suite_class"], row["criterion"], row["case"])
        found.setdefault(key, []).append(row)
    return found


def by_owner(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Model and test class -> their rows, in the order of the rows."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["model"], row["suite_class"]), []).append(row)
    return found


def told(row: Mapping[str, Any]) -> str:
    """The verdict of a row in one line: the finding, the measured value and the threshold.

    For a row without a verdict: the first line of the reason.
    """
    if "finding" not in row:
        return str(row["reason"]).partition("\n")[0]
    return (
        f"{row['finding']} (measured {_number(row['measured'])} {row['unit']}, {row['sense']} "
        f"{_number(row['threshold'])} is required)"
    )


def _number(value: Any) -> str:
    return rounded(value, 4) if isinstance(value, (int, float)) else str(value)


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
