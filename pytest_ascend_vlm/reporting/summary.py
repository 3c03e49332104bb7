"""The closing lines of a run: model x criterion group, and what was verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .rows import HOLDS

Rows = Sequence[Mapping[str, Any]]


def closing_table(rows: Rows) -> list[str]:
    """One line per test class and criterion group: counts by status, and the worst margin."""
    classes: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        classes.setdefault((row["suite_class"], row["model"]), []).append(row)
    lines = []
    for (suite_class, model), of_class in classes.items():
        head = f"{suite_class} ({model})"
        if all(row["status"] == "na" for row in of_class):
            lines.append(f"{head}: not applicable: {of_class[0]['reason']}")
            continue
        lines.append(head)
        for group in dict.fromkeys(group_of(row) for row in of_class):
            lines.append("  " + _group_line(group, [r for r in of_class if group_of(r) == group]))
    return lines


def _group_line(group: str, rows: Rows) -> str:
    counts = Counter(row["status"] for row in rows)
    shown = ", ".join(f"{count} {status}" for status, count in counts.items())
    worst = worst_margin(rows)
    if worst is None:
        return f"{group:<12} {shown}"
    case = f"[{worst['case']}]" if worst["case"] else ""
    return (
        f"{group:<12} {shown:<24} worst margin {worst['margin']:+.3g} {worst['unit']} "
        f"({worst['criterion']}{case})"
    )


def worst_margin(rows: Rows) -> Mapping[str, Any] | None:
    """The row closest to its bar, or furthest beyond it, relative to the bar's size."""
    judged = [row for row in rows if row["status"] in {"pass", "fail"}]
    judged = [row for row in judged if isinstance(row["margin"], (int, float))]
    return min(judged, key=_relative_margin, default=None)


def _relative_margin(row: Mapping[str, Any]) -> float:
    return float(row["margin"]) / (abs(float(row["threshold"])) or 1.0)


def closing_line(rows: Rows, where: str) -> str:
    """How many criteria were verified, where, and why the others were not.

    A criterion of a model is verified when each of its cases ended as pass, expected failure or
    not applicable; one that is not applicable as a whole is counted apart.
    """
    statuses: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        statuses.setdefault((row["suite_class"], row["criterion"]), set()).add(row["status"])
    applicable = [found for found in statuses.values() if found != {"na"}]
    verified = sum(1 for found in applicable if found <= HOLDS)
    line = f"{verified} of {len(applicable)} criteria verified"
    if all(group_of(row) == "reference" for row in rows):
        where = "the CPU reference"
    if len(applicable) < len(statuses):
        where += f"; {len(statuses) - len(applicable)} not applicable"
    if verified == len(applicable):
        return f"{line} on {where}"
    reasons = Counter(
        row["reason"].splitlines()[0] for row in rows if row["status"] == "skip" and row["reason"]
    )
    if reasons and verified == 0:
        return f"{line}: {reasons.most_common(1)[0][0]}"
    failing = Counter(row["status"] for row in rows if row["status"] not in HOLDS)
    return f"{line} on {where}; " + ", ".join(f"{n} {status}" for status, n in failing.items())


def group_of(row: Mapping[str, Any]) -> str:
    """The criterion's group."""
    return str(row["criterion"]).partition(".")[0]
