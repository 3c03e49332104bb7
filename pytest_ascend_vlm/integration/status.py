"""The state of a run while it goes on, from the events of its workers, as lines to show."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..duration import duration_text
from ..reporting.rows import STATUSES, TAKEN_OVER

PREPARING = "preparing"


@dataclass
class Worker:
    """The work of one worker.

    Attributes:
        owner: the test class with its model.
        criterion: the running criterion with its case, behind its place in the class.
        phase: the phase that it is in.
        detail: the progress of the phase; may be empty.
        since: time of the begin of the phase, on the clock of the display.
        budget_seconds: the time that the phase may take, or None.
    """

    owner: str = ""
    criterion: str = ""
    phase: str = PREPARING
    detail: str = ""
    since: float = 0.0
    budget_seconds: float | None = None

    def cells(self, now: float) -> tuple[str, str, str, str]:
        """Class, criterion, phase with its progress, and seconds with the budget."""
        budget = f" of {self.budget_seconds:.0f}" if self.budget_seconds is not None else ""
        doing = " ".join(filter(None, (self.phase, self.detail)))
        return self.owner, self.criterion, doing, f"{now - self.since:.0f}{budget} s"


@dataclass
class Status:
    """The state of a run.

    Attributes:
        tests: node ids of the selected tests.
        durations: node id -> seconds of the test in an earlier run; empty without one.
        workers: name -> the work of each worker that is in a class.
    """

    tests: Sequence[str] = ()
    durations: Mapping[str, float] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)
    _seen: set[str] = field(default_factory=set)

    def begin(self, tests: Sequence[str], durations: Mapping[str, float]) -> None:
        """Takes the selected tests; what was done before them is over."""
        self.tests, self.durations = tests, durations
        self.workers.clear()

    def take_event(self, event: Mapping[str, Any], now: float) -> None:
        """Takes an event of a worker.

        Args:
            event: the event.
            now: the time on the clock of the display.
        """
        name, kind = str(event["worker"]), event["event"]
        if kind == "ended":
            self.workers.pop(name, None)
        elif kind == "begin":
            self._seen.add(name)
            owner = f"{event['suite_class']} ({event['model']})"
            place = self._place(event["nodeid"])
            self.workers[name] = Worker(owner, f"{place}{event['criterion']}", since=now)
        elif kind == "phase":
            worker = self.workers.setdefault(name, Worker())
            if event["seconds"] is not None:
                worker.since = now - event["seconds"]
            elif event["phase"] != worker.phase:
                worker.since = now
            worker.phase, worker.detail = event["phase"], event["detail"]
            worker.budget_seconds = event["budget_seconds"]

    def take_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Counts the rows of a test."""
        self._counts.update(
            "taken over" if TAKEN_OVER in row else str(row["status"]) for row in rows
        )

    def take_end(self, test: str) -> None:
        """Counts a test that ended."""
        self._ended.add(test)

    def headline(self) -> str:
        """The number of tests that ended, the results, and the time that is left."""
        order = (*STATUSES, "taken over")
        counts = ", ".join(f"{self._counts[one]} {one}" for one in order if self._counts[one])
        ended = f"{len(self._ended)} of {len(self.tests)} tests ended"
        return "; ".join(filter(None, (ended, counts, self._left())))

    def _place(self, test: str) -> str:
        """The number of a test among those of its class: "12/160 "; empty if they are unknown."""
        of_class = [one for one in self.tests if _class_of(one) == _class_of(test)]
        ended = sum(one in self._ended for one in of_class)
        return f"{min(ended + 1, len(of_class))}/{len(of_class)} " if of_class else ""

    def _left(self) -> str:
        """The time left, by the durations of an earlier run; empty without one."""
        open_tests = [test for test in self.tests if test not in self._ended]
        known = [test for test in open_tests if test in self.durations]
        if not known:
            return ""
        by_class: defaultdict[str, float] = defaultdict(float)
        for test in known:
            by_class[_class_of(test)] += self.durations[test]
        # A class runs in one worker.
        seconds = max(sum(by_class.values()) / max(len(self._seen), 1), *by_class.values())
        text = f"about {duration_text(seconds)} left, as in the earlier run"
        new = len(open_tests) - len(known)
        return f"{text}, and {new} tests that it did not have" if new else text


def _class_of(test: str) -> str:
    return test.rpartition("::")[0]


def durations(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Node id -> seconds of each test that ran, from the events of a journal; the latest run's.

    The file may be another program's: an event without them is left out.
    """
    found: dict[str, float] = {}
    for event in (event for event in events if event["event"] == "test"):
        with contextlib.suppress(LookupError, TypeError, ValueError):
            seconds = float(event["seconds"])
            if math.isfinite(seconds) and not any(TAKEN_OVER in row for row in event["rows"]):
                found[str(event["nodeid"])] = seconds
    return found
