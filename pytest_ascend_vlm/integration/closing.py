"""The end of a run: writes the report, closes the gate, and words the last lines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest

from .. import gate
from ..reporting import Report, write
from ..reporting.origin import origin
from ..reporting.summary import closing_line, closing_table, doubtful_goldens
from ..session.run import Run
from . import findings, order, outcomes
from .receipt import gate_shortfalls, receipt, where


@dataclass
class Closing:
    """What the reports of all tests say together.

    Attributes:
        run: the run.
        lost: the tests that ended without a row, because their worker crashed.
        written: what was written, or why it was not, one line each.
    """

    run: Run
    lost: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    _report: Report = field(default_factory=Report)
    _repeats: findings.Repeats = field(default_factory=findings.Repeats)

    def take(self, report: pytest.TestReport) -> None:
        """Takes the rows off a test's report, unless pytest-rerunfailures will run it again."""
        if str(report.outcome) == "rerun":
            return
        place = getattr(report, order.PLACE, ())
        self._report.take(getattr(report, outcomes.EVIDENCE, ()), place)
        self._repeats.take(report)
        if report.failed and not hasattr(report, outcomes.EVIDENCE):
            self.lost.append(report.nodeid)

    def shortfalls(self, deselected: Collection[gate.Pair]) -> list[str]:
        """What a gate misses, in words; empty where it is green or the run is none."""
        missing = gate_shortfalls(self.run, self._report.rows, deselected)
        if self.run.options.required is not None:
            missing += [f"{test} ended without a row: its worker crashed" for test in self.lost]
        return missing

    def count_repeats(self) -> None:
        """Adds to each error how many more tests it stopped, before the errors are printed."""
        self._repeats.count()

    def write(self, argv: Sequence[str]) -> bool:
        """Writes the report where one is wanted; False where the disk refuses it."""
        directory = self.run.options.report
        if directory is None:
            return True
        try:
            paths = write(self._report, receipt(self.run, list(argv)), directory)
        except OSError as error:
            self.written = [f"the report could not be written to {directory}: {error.strerror}"]
            return False
        self.written = [f"written: {path}" for path in paths]
        return True

    def table(self) -> list[str]:
        """Model x criterion group with counts and worst margins; empty without rows."""
        rows = self._report.rows
        return [*closing_table(rows), *self.written] if rows else []

    def doubts(self) -> list[str]:
        """What speaks against judging by the goldens that were recorded."""
        return doubtful_goldens(self._report.rows)

    def last_line(self) -> str | None:
        """How many criteria were verified, and where; None without rows."""
        rows, run = self._report.rows, self.run
        if not rows:
            return None
        facts = {"platform": run.options.platform, "simulated": run.platform.simulated}
        nowhere = origin(facts, rows) == "nothing"
        line = closing_line(rows, "no served model" if nowhere else where(run))
        return f"{line}; {len(self.lost)} lost with a worker that crashed" if self.lost else line
