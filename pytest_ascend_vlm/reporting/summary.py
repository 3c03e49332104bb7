"""The closing lines of a run: a table by model and criterion group, and the number verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..criteria.groups import group_name, needs_server
from .rows import ACCEPTED, STATUSES, name_of

Rows = Sequence[Mapping[str, Any]]

_WHAT_TO_DO = (
    "What to do: degenerate answers, or near-ties at most positions, come from random or damaged",
    "weights or from a wrong chat template. Such a golden cannot judge anything: delete it and",
    "repair the checkpoint. After a single near-tie, correct engines may diverge, so the tokens",
    "behind it are hardly compared: ask a question that the model answers with certainty, or",
    "lower max_tokens.",
)


def closing_table(rows: Rows) -> list[str]:
    """Lines per test class and criterion group: counts by status, and the worst margin."""
    lines = []
    for head, groups in by_class(rows).items():
        if why_not := not_applicable(groups):
            lines.append(f"{head}: not applicable: {why_not}")
            continue
        lines.append(head)
        for group, of_group in groups.items():
            worst = worst_text(of_group)
            counts = counts_text(of_group)
            lines.append(
                f"  {group:<12} {counts:<24} worst margin {worst}"
                if worst
                else f"  {group:<12} {counts}"
            )
    return lines


def by_class(rows: Rows) -> Mapping[str, Mapping[str, Rows]]:
    """Test class with its model -> criterion group -> rows."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        groups = found.setdefault(f"{row['suite_class']} ({row['model']})", {})
        groups.setdefault(group_of(row), []).append(row)
    return found


def not_applicable(groups: Mapping[str, Rows]) -> str | None:
    """Reason why no criterion of a test class is applicable, or None."""
    rows = [row for of_group in groups.values() for row in of_group]
    return str(rows[0]["reason"]) if all(row["status"] == "na" for row in rows) else None


def counts_text(rows: Rows) -> str:
    """The number of rows by status: "2 pass, 1 fail"."""
    counts = Counter(row["status"] for row in rows)
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def worst_text(rows: Rows) -> str:
    """The worst margin with its criterion and case; empty without a margin."""
    worst = worst_margin(rows)
    if worst is None:
        return ""
    name = name_of(worst["criterion"], worst["case"])
    return f"{worst['margin']:+.3g} {worst['unit']} ({name})"


def worst_margin(rows: Rows) -> Mapping[str, Any] | None:
    """The row with the smallest margin relative to its threshold; None if no row has a margin."""
    judged = [row for row in rows if row["status"] in {"pass", "fail"}]
    judged = [row for row in judged if isinstance(row["margin"], (int, float))]
    return min(judged, key=_relative_margin, default=None)


def _relative_margin(row: Mapping[str, Any]) -> float:
    return float(row["margin"]) / (abs(float(row["threshold"])) or 1.0)


def closing_line(rows: Rows, where: str) -> str:
    """The number of verified criteria, the platform, and the number of each other result.

    A criterion of a class is verified if all its applicable cases passed. Expected failures and
    criteria that are not applicable are counted separately: a gate accepts both, but neither shows
    that something works. The reference's criteria run on this CPU, wherever models are served, so
    they are counted separately too.
    """
    served = [row for row in rows if needs_server(row["criterion"])]
    reference = [row for row in rows if not needs_server(row["criterion"])]
    counted = ((served, where), (reference, "the CPU reference"))
    return "; and ".join(_counted(own, place) for own, place in counted if own)


def _counted(rows: Rows, where: str) -> str:
    statuses: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        statuses.setdefault((row["suite_class"], row["criterion"]), set()).add(row["status"])
    applicable = [found for found in statuses.values() if found != {"na"}]
    verified = sum(1 for found in applicable if found <= {"pass", "na"})
    line = f"{verified} of {len(applicable)} criteria verified"
    reason = _commonest_skip(rows)
    if reason and {row["status"] for row in rows} <= {"skip", "na"}:
        return f"{line}: {reason}"
    expected = sum(1 for found in applicable if found <= ACCEPTED and "xfail" in found)
    failing = Counter(_worst(found) for found in applicable if not found <= ACCEPTED)
    others = [", ".join(f"{n} {status}" for status, n in failing.items())] if failing else []
    others += [f"{expected} with expected failures"] if expected else []
    not_applicable = len(statuses) - len(applicable)
    others += [f"{not_applicable} not applicable"] if not_applicable else []
    return "; ".join([f"{line} on {where}", *others])


def _worst(statuses: set[str]) -> str:
    return next(status for status in STATUSES if status in statuses - ACCEPTED)


def _commonest_skip(rows: Rows) -> str | None:
    reasons = Counter(
        row["reason"].splitlines()[0] for row in rows if row["status"] == "skip" and row["reason"]
    )
    return reasons.most_common(1)[0][0] if reasons else None


def doubtful_goldens(rows: Rows) -> list[str]:
    """The warning about doubtful recorded goldens, first line a title; empty if there are none.

    A doubtful golden is recorded as well, because only a person can decide whether it is correct.
    """
    recorded = [row for row in rows if row["criterion"] == "reference.replay"]
    found = [row for row in recorded if row["status"] == "recorded" and row["reason"]]
    if not found:
        return []
    return [
        f"{len(found)} OF {len(recorded)} RECORDED GOLDENS ARE DOUBTFUL",
        *(f"  {row['suite_class']} {row['case']}: {row['reason']}" for row in found),
        *_WHAT_TO_DO,
    ]


def group_of(row: Mapping[str, Any]) -> str:
    """The criterion's group."""
    return group_name(row["criterion"])
