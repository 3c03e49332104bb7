"""The verdicts of all criteria: what passed by how much, what failed, what was not judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ...criteria.diagnosis import TITLES, diagnose
from ..labels import CAPABILITIES, GROUPS, named
from ..phrase import Text, phrase
from ..rows import TAKEN_OVER, name_of
from ..sentences import sentence
from ..summary import group_of, worst_margin
from .rows import Json, Rows, counts, number


@dataclass(frozen=True)
class Margin:
    """The case of a criterion that is nearest to its threshold.

    Attributes:
        case: the case, or None.
        measured: the measured value.
        threshold: the threshold.
        sense: "at least" or "at most".
        unit: the unit of all three numbers.
        margin: distance to the threshold; negative if it fails.
    """

    case: str | None
    measured: float | None
    threshold: float | None
    sense: str | None
    unit: Text
    margin: float | None


@dataclass(frozen=True)
class CriterionLine:
    """The rows of one criterion.

    Attributes:
        id: the criterion's id.
        group: the group's id, the part of the id before the dot.
        group_name: the group's name.
        counts: status -> number of rows, the worst status first.
        worst: the case nearest to its threshold; None if no row has a margin.
    """

    id: str
    group: str
    group_name: Text
    counts: Mapping[str, int]
    worst: Margin | None


@dataclass(frozen=True)
class Problem:
    """A failure or an error.

    Attributes:
        name: the criterion with its case.
        status: "fail" or "error".
        reason: the message, several lines.
        more: number of other rows that the same error stopped.
    """

    name: str
    status: str
    reason: Text
    more: int


@dataclass(frozen=True)
class Suspect:
    """A part of the served model that the results point to.

    Attributes:
        part: the part, as a noun phrase.
        because: the results that point to it.
        next_step: the next thing to do.
    """

    part: Text
    because: Text
    next_step: Text


@dataclass(frozen=True)
class Note:
    """Rows that are no verdict, or an expected failure, for the same reason.

    Attributes:
        criteria: their criteria.
        cases: their cases, each once.
        rows: number of rows.
        status: "xfail", "skip", "na", or "recorded" for a doubtful golden.
        reason: the reason; where it names the row's case, it says "the case".
    """

    criteria: tuple[str, ...]
    cases: tuple[str, ...]
    rows: int
    status: str
    reason: Text


@dataclass(frozen=True)
class Unsupported:
    """A capability that the model file declares as unsupported.

    Attributes:
        capability: its name.
        reason: the declared reason.
    """

    capability: Text
    reason: Text


def criterion_lines(rows: Rows) -> tuple[CriterionLine, ...]:
    """One line per criterion, in the order of the rows."""
    ids = dict.fromkeys(row["criterion"] for row in rows)
    return tuple(_line(name, [row for row in rows if row["criterion"] == name]) for name in ids)


def _line(name: str, rows: Rows) -> CriterionLine:
    group, worst = group_of(rows[0]), worst_margin(rows)
    return CriterionLine(
        name, group, named(GROUPS, group), counts(rows), None if worst is None else _margin(worst)
    )


def _margin(row: Json) -> Margin:
    return Margin(
        row["case"],
        number(row["measured"]),
        number(row["threshold"]),
        row["sense"],
        sentence(str(row["unit"] or "")),
        number(row["margin"]),
    )


def suspects(rows: Rows) -> tuple[Suspect, ...]:
    """The parts that the results of a model point to, the likelier one first."""
    return tuple(
        Suspect(sentence(TITLES[one.part]), sentence(one.because), sentence(one.next_step))
        for one in diagnose(rows)
    )


def problems(rows: Rows) -> tuple[Problem, ...]:
    """Each failure and error once, with the number of other rows that it stopped."""
    bad = [row for row in rows if row["status"] in {"fail", "error"}]
    shown = {name_of(row["criterion"], row["case"]): row for row in bad if not row["told_at"]}
    more = Counter(row["told_at"] for row in bad if row["told_at"])
    # If the first test has no row (a user's plain test), the next row shows the error instead.
    for row in (row for row in bad if row["told_at"] and row["told_at"] not in shown):
        shown[row["told_at"]] = row
        more[row["told_at"]] -= 1
    return tuple(
        Problem(name, row["status"], sentence(row["reason"]), more[name])
        for name, row in shown.items()
    )


def notes(rows: Rows) -> tuple[Note, ...]:
    """Expected failures, doubtful goldens, skipped rows, and those that are not applicable."""
    found: dict[tuple[str, str], list[Json]] = {}
    for status in ("xfail", "recorded", "skip", "na"):
        for row in rows:
            if row["status"] == status and (row["reason"] or status != "recorded"):
                found.setdefault((status, _general_reason(row)), []).append(row)
    return tuple(
        Note(
            tuple(dict.fromkeys(row["criterion"] for row in own)),
            tuple(dict.fromkeys(row["case"] for row in own if row["case"])),
            len(own),
            status,
            sentence(reason),
        )
        for (status, reason), own in found.items()
    )


def _general_reason(row: Json) -> str:
    reason, case = str(row["reason"]), str(row["case"] or "")
    # The id of a case has a slash; other cases ("text", "http") may be words of the reason.
    return reason.replace(case, "the case") if "/" in case else reason


def taken_over(rows: Rows) -> tuple[Text, ...]:
    """One sentence for each earlier run whose verdicts were taken over."""
    told = (row[TAKEN_OVER] for row in rows if TAKEN_OVER in row)
    origins = Counter((str(one["report"]), str(one["date"])) for one in told)
    return tuple(
        phrase(
            "{count} of {total} results were taken over from the report in {report}: the run of "
            "{date} judged them, with the same set-up.",
            count=count,
            total=len(rows),
            report=report,
            date=date,
        )
        for (report, date), count in origins.items()
    )


def unsupported(model: Json) -> tuple[Unsupported, ...]:
    """The capabilities that a model file declares as unsupported."""
    declared = (model.get("unsupported") or {}).items()
    return tuple(
        Unsupported(named(CAPABILITIES, name), sentence(str(why))) for name, why in declared
    )
