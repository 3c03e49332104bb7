"""The verdicts of earlier runs that a run takes over (`--vlm-resume`).

A verdict is taken over only if everything that it depends on is known and equal: the receipt and
the conditions of the run, and those of the test class. An error or a skip is no verdict.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .differences import Difference, differences
from .journal import FILE_NAME, SCHEMA, Event, read
from .merge import ADVICE, continued
from .reading import require_shape
from .rows import TAKEN_OVER, VERDICTS
from .totals import totals

Rows = list[dict[str, Any]]

_DECIDED = VERDICTS | {"na"}


@dataclass
class EarlierRun:
    """One run of a journal.

    Attributes:
        name: the name of the run.
        receipt: its receipt, with its conditions.
        seconds: the time from its first event to its last.
        classes: (model, test class) -> what it was judged with, on each host that ran a part of it.
        tests: node id -> the event of the test's end.
    """

    name: str
    receipt: dict[str, Any]
    seconds: float = 0.0
    classes: dict[tuple[str, str], list[Event]] = field(default_factory=dict)
    tests: dict[str, Event] = field(default_factory=dict)

    @property
    def date(self) -> str:
        """Start of the run, ISO 8601."""
        return str(self.receipt["runs"][0]["date"])

    @property
    def rows(self) -> Rows:
        """The rows that the run judged itself."""
        every = [row for test in self.tests.values() for row in test["rows"]]
        return [row for row in every if TAKEN_OVER not in row]


@dataclass(frozen=True)
class TakenOver:
    """The decision about one test class.

    Attributes:
        rows: node id -> the rows that are taken over.
        refused: one line for each difference that forbids it; empty without a difference.
    """

    rows: Mapping[str, Rows]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Earlier:
    """The runs of a journal that a run may take verdicts over from.

    Attributes:
        place: the directory of the journal, as messages name it.
        events: all events of the journal.
        runs: its runs with an equal receipt, earliest first.
        refused: one line for each difference of the other runs.
    """

    place: str
    events: Sequence[Event]
    runs: tuple[EarlierRun, ...]
    refused: tuple[str, ...] = ()

    def taken_over(self, facts: Mapping[str, Any]) -> TakenOver:
        """The verdicts of a test class that hold for this run; the latest of each test.

        Args:
            facts: what the class is judged with in this run.
        """
        key = (facts["model"], facts["suite_class"])
        rows: dict[str, Rows] = {}
        refused: list[str] = []
        for run in (run for run in self.runs if key in run.classes):
            here = _alone(run.receipt, facts)
            there = (_alone(run.receipt, one) for one in run.classes[key])
            found = [one for before in there for one in differences(before, here)]
            if found:
                refused = [self._refusal(one) for one in found]
                continue
            rows, refused = rows | self._of_class(run, key), []
        decided = {test: own for test, own in rows.items() if _is_decided(own)}
        return TakenOver(decided, tuple(refused) if not decided else ())

    def as_text(self, tests: Container[str] | None = None) -> str:
        """What `taken_over` needs, as a text for another process.

        Args:
            tests: node ids of the tests that the process runs; None for all.
        """
        names = {run.name for run in self.runs}
        of_runs = (event for event in self.events if event["run"] in names)
        needed = [event for event in of_runs if _is_needed(event, tests)]
        return json.dumps({"place": self.place, "events": needed})

    @classmethod
    def from_text(cls, text: str) -> Earlier:
        """The inverse of `as_text`."""
        told = json.loads(text)
        return cls(told["place"], told["events"], tuple(runs_in(told["events"])))

    def document(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
        """A report of the runs whose verdicts were taken over, without rows; None if none were.

        Args:
            rows: the rows of this run.
        """
        origins = [(row[TAKEN_OVER]["run"], _key(row)) for row in rows if TAKEN_OVER in row]
        used = [run for run in self.runs if any(run.name == name for name, _ in origins)]
        reports = [_report(run, {key for name, key in origins if name == run.name}) for run in used]
        return reduce(lambda first, second: continued(first, second, []), reports) if used else None

    def _of_class(self, run: EarlierRun, key: tuple[str, str]) -> dict[str, Rows]:
        origin = {"report": self.place, "run": run.name, "date": run.date}
        tests = (test for test in run.tests.values() if key in map(_key, test["rows"]))
        return {
            test["nodeid"]: [{TAKEN_OVER: origin, **row} for row in test["rows"]] for test in tests
        }

    def _refusal(self, found: Difference) -> str:
        return f"{found.what}: {found.first} in {self.place}, {found.second} in this run"


def directory_of(path: Path) -> Path:
    """The directory of a report that is named by itself, or by one of its files."""
    return path.parent if path.is_file() else path


def earlier_runs(path: Path, receipt: Mapping[str, Any]) -> Earlier:
    """The runs of a report's journal that a run may take verdicts over from.

    Args:
        path: the directory of the report, or a file in it.
        receipt: the receipt of this run, with its conditions.

    Raises:
        ConfigurationError: there is no journal, it is damaged or has another schema, or no run of
            it has an equal receipt.
    """
    place = directory_of(path)
    try:
        events = read(place / FILE_NAME)
    except OSError as error:
        raise ConfigurationError(
            f"--vlm-resume: cannot read {place / FILE_NAME} ({error.strerror}); name the directory "
            "of a run with --vlm-report"
        ) from error
    _require_schema(events, place / FILE_NAME)
    try:
        fitting = _fitting(runs_in(events), receipt, str(place))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"--vlm-resume: {place / FILE_NAME} is not a journal written by pytest --vlm-report "
            f"({error!r}); name the directory of a run with --vlm-report"
        ) from error
    return Earlier(str(place), events, *fitting)


def _require_schema(events: Iterable[Event], path: Path) -> None:
    for event in (event for event in events if event["event"] == "run"):
        if event.get("schema") != SCHEMA:
            raise ConfigurationError(
                f"--vlm-resume: {path} has a run of schema {event.get('schema')}, but this version "
                f"reads schema {SCHEMA}; use the version that wrote it, or run without --vlm-resume"
            )


def _fitting(
    runs: Sequence[EarlierRun], receipt: Mapping[str, Any], place: str
) -> tuple[tuple[EarlierRun, ...], tuple[str, ...]]:
    """The runs with an equal receipt, and the lines about the others."""
    lines = {run.name: _of_receipts(run, receipt) for run in runs}
    refused = tuple(line for of_run in lines.values() for line in of_run)
    fitting = tuple(run for run in runs if not lines[run.name])
    if fitting:
        return fitting, refused
    problem = f"--vlm-resume: no verdict in {place} holds for this run:"
    raise ConfigurationError("\n  ".join([problem, *(refused or ["it has no run"])]))


def _of_receipts(run: EarlierRun, receipt: Mapping[str, Any]) -> list[str]:
    found = differences(_alone(run.receipt), _alone(receipt))
    return [
        f"{one.what}: {one.first} in the run of {run.date}, {one.second} in this run; "
        f"{ADVICE[one.field]}"
        for one in found
    ]


def runs_in(events: Iterable[Event]) -> list[EarlierRun]:
    """The runs of a journal, earliest first; an event of an unknown run is left out.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: an event lacks a part, or it is
            something else.
    """
    runs: dict[str, EarlierRun] = {}
    for event in events:
        if event["event"] == "run":
            receipt = {**event["receipt"], "conditions": event.get("conditions", {})}
            runs[event["run"]] = EarlierRun(event["run"], receipt)
        run = runs.get(event["run"])
        if run is None:
            continue
        began = datetime.fromisoformat(run.date)
        run.seconds = (datetime.fromisoformat(event["time"]) - began).total_seconds()
        if event["event"] == "class":
            run.classes.setdefault(_key(event), []).append(event)
        elif event["event"] == "test":
            require_shape({"schema": SCHEMA, "receipt": run.receipt, **event})
            run.tests[event["nodeid"]] = event
    return list(runs.values())


def _is_needed(event: Event, tests: Container[str] | None) -> bool:
    if event["event"] == "test":
        return tests is None or event["nodeid"] in tests
    return event["event"] in {"run", "class"}


def _key(told: Mapping[str, Any]) -> tuple[str, str]:
    return told["model"], told["suite_class"]


def _is_decided(rows: Rows) -> bool:
    return bool(rows) and all(row["status"] in _DECIDED for row in rows)


def _alone(receipt: Mapping[str, Any], *models: Mapping[str, Any]) -> dict[str, Any]:
    return {"receipt": receipt, "models": list(models)}


def _report(run: EarlierRun, classes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """A run as a report, with the facts of the servers of some classes, and without rows."""
    told = [facts for test in run.tests.values() for facts in test["models"]]
    models: dict[tuple[str, str], dict[str, Any]] = {}
    for facts in (facts for facts in told if _key(facts) in classes):
        known = models.setdefault(_key(facts), {})
        variants = {**known.get("variants", {}), **facts.get("variants", {})}
        known.update({**facts, "variants": variants})
    seconds = round(run.seconds, 1)
    statuses = dict(Counter(row["status"] for row in run.rows))
    runs = [{**run.receipt["runs"][0], "seconds": seconds, "statuses": statuses}]
    own = {name: value for name, value in run.receipt.items() if name != "conditions"}
    receipt = {**own, "seconds": seconds, "runs": runs, **totals(models.values())}
    return {"receipt": receipt, "models": list(models.values()), "rows": []}
