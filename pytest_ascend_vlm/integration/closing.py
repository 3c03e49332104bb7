"""The end of a run: writes the report, evaluates the gate, and makes the last lines."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .. import gate
from ..reporting import Report, write_document
from ..reporting.diagnosis import diagnosis_lines
from ..reporting.journal import Event
from ..reporting.merge import continued
from ..reporting.origin import origin
from ..reporting.resume import Earlier
from ..reporting.rows import TAKEN_OVER
from ..reporting.step_summary import VARIABLE, artifacts, step_summary
from ..reporting.summary import closing_line, closing_table, doubtful_goldens
from ..session.run import Run
from ..writing import exclusive
from . import findings, order, outcomes, resume
from .append import Appended, appended
from .receipt import gate_shortfalls, is_simulated, receipt, unmodified_engines, where


@dataclass
class Closing:
    """The reports of all tests together.

    Attributes:
        run: the run.
        crashed: the tests without a row, because their worker crashed.
        notes: lines about the run: its hosts, and the classes that ran again on another one.
        written: one line for each written file, or the reason why writing failed.
        again: the events about classes that were judged again in a resumed run.
    """

    run: Run
    crashed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    again: list[Event] = field(default_factory=list)
    _report: Report = field(default_factory=Report)
    _tests: dict[str, str] = field(default_factory=dict)
    _repeats: findings.Repeats = field(default_factory=findings.Repeats)

    def take(self, report: pytest.TestReport) -> None:
        """Takes the rows of a test's report, unless pytest-rerunfailures will run it again."""
        if str(report.outcome) == "rerun":
            return
        key = getattr(report, order.SORT_KEY, ())
        evidence = getattr(report, outcomes.EVIDENCE, ())
        self._report.take(evidence, key)
        for suite_class in {row["suite_class"] for name, row in evidence if name == "vlm_row"}:
            self._tests[suite_class] = _class_in(report.nodeid, suite_class)
        self._repeats.take(report)
        if report.failed and not hasattr(report, outcomes.EVIDENCE):
            self.crashed.append(report.nodeid)

    def shortfalls(self, deselected: Collection[gate.Pair]) -> list[str]:
        """Reasons why the gate fails; empty if it passes, or if the run is no gate."""
        missing = gate_shortfalls(self.run, self._report.rows, deselected)
        if self.run.options.required is not None:
            missing += [f"{test} has no row: its worker crashed" for test in self.crashed]
        return missing

    def add_counts(self) -> None:
        """Adds to each error how many more tests it stopped, before the errors are printed."""
        self._repeats.add_counts()

    def write(self, argv: Sequence[str], earlier: Earlier | None = None) -> bool:
        """Writes the report if `--vlm-report` names a directory; False if that fails.

        A run without rows leaves the report that it would be appended to as it is. So does one on a
        cluster that it could not use.

        Args:
            argv: the arguments of pytest.
            earlier: the earlier runs whose verdicts the tests took over, or None.
        """
        directory, appends = self.run.options.report, self.run.options.append_report
        has_hosts = self.run.fleet is not None or not self.run.is_spread
        if directory is None or not has_hosts or (appends and not self._report.rows):
            return True
        if self._report.models and self.run.options.server_url is None:
            fleet = self.run.fleet
            found = unmodified_engines() if fleet is None else fleet.unmodified
            self._report.add_to_models({"unmodified": found})
        told = {**receipt(self.run, list(argv)), "tests": self._tests}
        if self.notes:
            told["runs"] = [{**told["runs"][0], "notes": self.notes}]
        document = self._report.document(told)
        before = earlier.document(document["rows"]) if earlier else None
        if before is not None:
            document = continued(before, document, document["rows"])
        try:
            with exclusive(directory):
                own = Appended(document, directory)
                result = appended(document, directory) if appends else own
                written = write_document(result.document, result.directory)
        except OSError as error:
            self.written = [f"the report could not be written to {directory}: {error.strerror}"]
            return False
        self.written = [*result.lines, *written.lines]
        return not result.refused

    def write_step_summary(self) -> None:
        """Appends the table to the summary of the step, in a run of GitHub Actions."""
        path, last_line = os.environ.get(VARIABLE), self.last_line()
        if not path or last_line is None:
            return
        has_page, place = self.run.options.report is not None, artifacts(os.environ)
        text = step_summary(self._report.rows, last_line, has_page=has_page, place=place)
        try:
            with Path(path).open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:
            self.written.append(f"{VARIABLE}={path} could not be written: {error.strerror}")

    def table(self) -> list[str]:
        """The table of models and criterion groups, and the diagnoses; empty without rows."""
        rows = self._report.rows
        taken_over = resume.lines(rows, self.again)
        every = (
            closing_table(rows),
            diagnosis_lines(rows),
            taken_over,
            self.notes,
            self.written,
        )
        return [line for lines in every for line in lines] if rows else []

    def doubts(self) -> list[str]:
        """Doubts about the goldens that were recorded."""
        return doubtful_goldens(self._report.rows)

    def last_line(self) -> str | None:
        """The number of verified criteria, and where they were verified; None without rows."""
        rows, run = self._report.rows, self.run
        if not rows:
            return None
        facts = {"platform": run.options.platform, "simulated": is_simulated(run)}
        nothing_judged = origin(facts, rows) == "nothing"
        line = closing_line(rows, "no served model" if nothing_judged else where(run))
        if taken_over := sum(TAKEN_OVER in row for row in rows):
            line = f"{line}; {taken_over} of {len(rows)} results taken over"
        if not self.crashed:
            return line
        return f"{line}; {len(self.crashed)} lost with a worker that crashed"


def _class_in(test: str, suite_class: str) -> str:
    """The node id of a test's class: "conformance/test_glm_ocr.py::TestGlmOcr"."""
    return f"{test.partition(f'::{suite_class}::')[0]}::{suite_class}"
