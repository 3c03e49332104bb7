"""Compares two reports: results that turned, numbers that moved, rows that are new or gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..control_characters import with_visible_controls
from ..errors import ConfigurationError
from .differences import Difference, differences
from .intervals import Interval, intervals
from .merge import Named
from .rows import STATUSES, VERDICTS, Key, grouped, name_of, told

Row = Mapping[str, Any]
Owner = tuple[str, str]
"""Model and test class."""

_REFUSED = ("platform", "checkpoint", "simulated")
_BAD = ("fail", "error")
_GONE, _UNASKED = "gone", "not asked"
_TURNS: Mapping[str, Mapping[str, str | None]] = {
    old: dict(zip(("pass", "xfail", "fail", "error", _UNASKED, _GONE), kinds, strict=True))
    for old, kinds in {
        "pass": (None, "xfail", "fail", "error", "lost", "gone"),
        "xfail": ("better", None, "fail", "error", "lost", "gone"),
        "fail": ("better", "known", None, "error", "lost", "gone"),
        "error": ("better", "known", "fail", None, "lost", "gone"),
        _UNASKED: ("better", "known", "fail", "error", None, None),
        _GONE: ("new", "known", "fail", "error", "new", None),
    }.items()
}
"""Old -> new status -> kind of change; None if there is nothing to tell.

A gate must not open because a question was not asked. So what was asked once and is skipped, not
applicable or gone is worse, and a test that is new has to pass.
"""
_WORSE = ("fail", "error", "moved", "gone", "xfail", "lost")
"""The kinds of change that are worse, worst first."""
_OTHER = ("known", "better", "new")
_NAMES = {"known": "now a known failure"}
_ALONE = 3
"""Number of cases of one criterion with the same change that have a line each."""


@dataclass(frozen=True)
class Change:
    """One change between two reports.

    Attributes:
        owner: the model and its test class.
        kind: one of `_WORSE` and `_OTHER`.
        what: the change: "pass -> fail", "R moved", "gone".
        criterion: the criterion; empty for all of the class.
        case: the case, or None.
        text: the new finding, or the two numbers.
    """

    owner: Owner
    kind: str
    what: str
    criterion: str
    case: str | None
    text: str

    @property
    def is_worse(self) -> bool:
        """True for a new failure or error, a number that moved to the worse, a lost result."""
        return self.kind in _WORSE


@dataclass(frozen=True)
class Comparison:
    """The changes from an old report to a new one.

    Attributes:
        old: the old report.
        new: the new report.
        changes: worst first.
        same: number of tests with the same result in both.
    """

    old: Named
    new: Named
    changes: tuple[Change, ...]
    same: int
    _differing: tuple[Difference, ...] = field(default=())

    @property
    def is_worse(self) -> bool:
        """True if at least one change is worse."""
        return any(change.is_worse for change in self.changes)

    def __str__(self) -> str:
        lines = "\n".join([*self._head(), *self._by_model(), self._counts()])
        return with_visible_controls(lines)

    def _head(self) -> Iterator[str]:
        receipt = self.new.document["receipt"]
        where = f"{receipt['platform']}, {receipt['checkpoint']} checkpoints"
        yield f"{self.old.name} -> {self.new.name} ({where})"
        yield from (_told(one) for one in self._differing if not one.model)

    def _by_model(self) -> Iterator[str]:
        facts = [one for one in self._differing if one.model]
        changed = dict.fromkeys(change.owner for change in self.changes)
        for owner in dict.fromkeys([*changed, *(one.model for one in facts)]):
            yield f"{owner[0]} ({owner[1]})"
            yield from (_told(one) for one in facts if one.model == owner)
            yield from _lines(change for change in self.changes if change.owner == owner)

    def _counts(self) -> str:
        kinds = [change.kind for change in self.changes]
        worse = sum(kind in _WORSE for kind in kinds)
        others = ", ".join(f"{kinds.count(kind)} {_NAMES.get(kind, kind)}" for kind in _OTHER)
        return f"{worse} worse, {others}, {self.same} without a change"


def compare(old: Named, new: Named) -> Comparison:
    """Compares two reports.

    Args:
        old: the report of the earlier release.
        new: the report of the later one.

    Raises:
        ConfigurationError: the platforms or the kinds of checkpoint differ, or one of the two is
            simulated.
    """
    found = differences(old.document, new.document)
    if refused := [one for one in found if one.field in _REFUSED]:
        lines = [
            f"{one.what} is {one.first} in {old.name}, {one.second} in {new.name}; compare two "
            f"reports of the same {one.what}"
            for one in refused
        ]
        raise ConfigurationError("\n  ".join(["these reports cannot be compared:", *lines]))
    before, after = grouped(old.document["rows"]), grouped(new.document["rows"])
    devices = (old.document["receipt"]["device"], new.document["receipt"]["device"])
    changes: list[Change] = list(_whole_classes(before, after))
    same = 0
    owners = {change.owner for change in changes}
    for key in dict.fromkeys([*before, *after]):
        if key[:2] in owners:
            continue
        of_test = list(_changes(key, before.get(key, []), after.get(key, []), devices))
        changes += of_test
        same += key in before and key in after and not of_test
    order = (*_WORSE, *_OTHER)
    changes.sort(key=lambda change: order.index(change.kind))
    return Comparison(old, new, tuple(changes), same, tuple(found))


def _whole_classes(
    before: Mapping[Key, Sequence[Row]], after: Mapping[Key, Sequence[Row]]
) -> Iterator[Change]:
    """One change for each test class that only one report has."""
    old, new = (_statuses(rows) for rows in (before, after))
    for owner in (one for one in old if one not in new):
        ran = sum(_asked(status) != _UNASKED for status in old[owner])
        if ran:
            text = f"the new report has no row of this class; {ran} of its tests ran in the old one"
            yield Change(owner, "gone", "gone", "", None, text)
    for owner in (one for one in new if one not in old):
        kind = next((status for status in _BAD if status in new[owner]), "new")
        bad = sum(status in _BAD for status in new[owner])
        text = f"{len(new[owner])} tests, {bad} of them a failure or an error"
        yield Change(owner, kind, "new", "", None, text)


def _statuses(rows: Mapping[Key, Sequence[Row]]) -> dict[Owner, list[str]]:
    """The statuses of the tests of each class."""
    found: dict[Owner, list[str]] = {}
    for key, of_test in rows.items():
        found.setdefault(key[:2], []).append(_status(of_test))
    return found


def _changes(
    key: Key, old: Sequence[Row], new: Sequence[Row], devices: tuple[str, str]
) -> Iterator[Change]:
    def change(kind: str, what: str, text: str) -> Change:
        return Change(key[:2], kind, what, key[2], key[3], text)

    before, after = (_status(rows) if rows else _GONE for rows in (old, new))
    if (kind := _TURNS[_asked(before)][_asked(after)]) is not None:
        yield change(kind, *_turned(before, after, new))
    elif before == after and before in VERDICTS and len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            yield from (
                change("moved" if is_worse else "better", f"{name} moved", text)
                for name, is_worse, text in _moves(one, other, devices)
            )


def _turned(before: str, after: str, new: Sequence[Row]) -> tuple[str, str]:
    """The change of a test's status, and the finding of the new report."""
    if after == _GONE:
        return "gone", f"it was {before}"
    what = f"new: {after}" if before == _GONE else f"{before} -> {after}"
    return what, _finding(new)


def _asked(status: str) -> str:
    """A status as `_TURNS` has it: skip, not applicable and recorded judged nothing."""
    return status if status in _TURNS else _UNASKED


def _moves(old: Row, new: Row, devices: tuple[str, str]) -> Iterator[tuple[str, bool, str]]:
    """The name of each number that moved beyond both intervals, True if to the worse, and both."""
    before = {one.name: one for one in intervals(old, devices[0])}
    for after in intervals(new, devices[1]):
        one = before.get(after.name)
        if one is None or one.basis != after.basis:
            continue
        if after.is_above(one) or one.is_above(after):
            is_worse = after.is_above(one) != after.more_is_better
            yield after.name, is_worse, f"{one} -> {after}{_threshold(new, after)}"


def _threshold(row: Row, interval: Interval) -> str:
    judged = isinstance(row["threshold"], (int, float)) and row["measured"] == interval.value
    return f", {row['sense']} {row['threshold']:.3g} is required" if judged else ""


def _status(rows: Iterable[Row]) -> str:
    """The status of a test: the worst of its rows."""
    return min((str(row["status"]) for row in rows), key=STATUSES.index)


def _finding(rows: Sequence[Row]) -> str:
    status = _status(rows)
    return told(next(row for row in rows if row["status"] == status))


def _lines(changes: Iterable[Change]) -> Iterator[str]:
    """One line for each change; one line for many cases of a criterion with the same change."""
    together: dict[tuple[str, str, str], list[Change]] = {}
    for change in changes:
        together.setdefault((change.kind, change.what, change.criterion), []).append(change)
    for (_, what, criterion), same in together.items():
        if len(same) <= _ALONE:
            for change in same:
                name = f"{name_of(criterion, change.case)}: " if criterion else ""
                yield f"  {what}: {name}{change.text}"
        else:
            cases = ", ".join(str(change.case) for change in same[:_ALONE])
            yield f"  {what}: {criterion}: {len(same)} cases ({cases}, ...): {same[0].text}"


def _told(one: Difference) -> str:
    return f"  {one.what}: {one.first} -> {one.second}"
