"""Access to the rows and the evidence of report.json."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..rows import STATUSES, VERDICTS

Json = Mapping[str, Any]
"""An object of report.json."""

Rows = Sequence[Json]
"""Rows of report.json; see `reporting.rows.Row`."""


def evidence(row: Json) -> Json:
    """The evidence of a row; empty if it has none."""
    return row.get("evidence") or {}


def first_evidence(rows: Iterable[Json]) -> Json:
    """The evidence of the first row that has any: the rules of a criterion share it."""
    return next((found for row in rows if (found := evidence(row))), {})


def of(rows: Iterable[Json], *criteria: str) -> list[Json]:
    """The rows of these criteria, in their order; "tasks." stands for all criteria of the group."""
    return [
        row
        for row in rows
        if any(
            row["criterion"] == name or (name.endswith(".") and row["criterion"].startswith(name))
            for name in criteria
        )
    ]


def with_verdict(rows: Iterable[Json]) -> list[Json]:
    """The rows that were judged."""
    return [row for row in rows if row["status"] in VERDICTS]


def that_ran(rows: Iterable[Json]) -> list[Json]:
    """The rows of tests that ran: they have a verdict, or an error."""
    return [row for row in rows if row["status"] not in {"skip", "na"}]


def counts(rows: Iterable[Json]) -> dict[str, int]:
    """Status -> number of rows; failures and errors come first."""
    found = Counter(row["status"] for row in rows)
    return {status: found[status] for status in STATUSES if status in found}


def number(value: Any) -> float | None:
    """A finite number, or None; NaN and infinity are strings in JSON."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def first_line(text: Any) -> str:
    """The first line of a reason; the whole text is in the document's problems."""
    return str(text or "").partition("\n")[0]


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
