"""Writes the journal of a run (`events.jsonl`) in the process that writes the report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ..reporting.journal import FILE_NAME, SCHEMA, Event, Journal, read
from ..reporting.resume import Earlier
from ..reporting.rows import in_place
from ..session.conditions import run_conditions
from ..session.run import Run
from . import order, outcomes
from .activity import MAIN
from .receipt import receipt

_PHASES = ("setup", "call", "teardown")


@dataclass
class _Test:
    """The reports of one test so far."""

    outcome: str = "passed"
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)

    def take(self, report: pytest.TestReport) -> None:
        key = getattr(report, order.SORT_KEY, ())
        for name, value in getattr(report, outcomes.EVIDENCE, ()):
            if name == "vlm_row":
                self.rows.append(in_place(value, key))
            elif name == "vlm_model":
                self.models.append(value)
        self.seconds += report.duration
        if self.outcome == "passed":
            self.outcome = report.outcome


class RunJournal:
    """The journal of a run: its receipt, the steps of its processes, and each test that ended.

    Phases come from other threads as well, so each event is written by one call.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._tests: dict[str, _Test] = {}
        self._phases: dict[str, tuple[Any, ...]] = {}

    def take_event(self, event: Event) -> None:
        """Takes an event of a process that runs tests; of a phase only its begin is written."""
        if event["event"] == "phase":
            phase = (event.get("suite_class"), event["phase"])
            if self._phases.get(event["worker"]) == phase:
                return
            self._phases[event["worker"]] = phase
            event = {name: value for name, value in event.items() if name != "seconds"}
        self.journal.write(event)

    def take(self, report: pytest.TestReport) -> None:
        """Takes a report; writes the test with the last report of it."""
        if str(report.outcome) == "rerun":
            self._tests.pop(report.nodeid, None)
            return
        test = self._tests.setdefault(report.nodeid, _Test())
        test.take(report)
        # The report of a test whose worker crashed has no phase.
        if report.when == "teardown" or report.when not in _PHASES:
            del self._tests[report.nodeid]
            self.journal.write(_of_test(report, test))

    def end(self, exitstatus: int) -> list[str]:
        """Writes that the run ended; returns the problem of a journal that is not complete."""
        self.journal.write({"event": "end", "exitstatus": int(exitstatus)})
        return [self.journal.problem] if self.journal.problem else []


def events_before(run: Run, earlier: Earlier | None) -> Sequence[Event]:
    """The events of the earlier run in the report's directory, or of the one that is resumed."""
    if earlier is not None or run.options.report is None:
        return earlier.events if earlier else ()
    path = run.options.report / FILE_NAME
    with contextlib.suppress(OSError):
        return read(path)
    return ()


def begin(run: Run, argv: Iterable[str], tests: int, before: Sequence[Event]) -> RunJournal | None:
    """Begins the journal of a run in the report's directory; None without a report.

    With `--vlm-report-append` and `--vlm-resume` it begins with the events of the runs before, so
    a run that is killed again has lost nothing.

    Args:
        run: the run.
        argv: the arguments of pytest.
        tests: the number of selected tests.
        before: what `events_before` returns.
    """
    options = run.options
    if options.report is None:
        return None
    path = options.report / FILE_NAME
    kept = before if options.resume or options.append_report else ()
    journal = Journal(path, run.logs.name, kept)
    told = {"receipt": receipt(run, list(argv)), "conditions": run_conditions(run)}
    journal.write({"event": "run", "schema": SCHEMA, "tests": tests, **told})
    return RunJournal(journal)


def _of_test(report: pytest.TestReport, test: _Test) -> Mapping[str, Any]:
    node = getattr(report, "node", None)
    return {
        "event": "test",
        "worker": node.gateway.id if node is not None else MAIN,
        "nodeid": report.nodeid,
        "outcome": test.outcome,
        "seconds": round(test.seconds, 3),
        "rows": test.rows,
        "models": test.models,
    }
