"""The process that prints: asks for the set-up once, gathers rows, and tells how a run ended."""

from __future__ import annotations

from collections.abc import Container, Generator, Sequence
from typing import Any

import pytest

from ..errors import ConfigurationError
from ..model_files import model_files
from ..reporting import Report, write
from ..reporting.origin import origin
from ..reporting.summary import closing_line, closing_table, doubtful_goldens
from ..session.run import Run
from ..session.setup import require_setup
from . import findings, hints, order, outcomes, selection, workers
from .criterion_call import call_of
from .receipt import gate_shortfalls, receipt, where


class Reporter:
    """Gathers the rows in the process that prints, which under xdist is not the one that tests."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._report = Report()
        self._repeats = findings.Repeats()
        self._has_asked = False
        self._hints: list[str] = []
        self._told: list[str] = []
        self._deselected: set[tuple[str, str]] = set()
        self._lost: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self) -> Generator[None, object, object]:
        """Adds what to type to pytest's refusal of a marker that a strict project does not know."""
        try:
            return (yield)
        except pytest.UsageError as error:
            raise pytest.UsageError("\n".join([str(error), *hints.of_run(self._config)])) from error

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Finds out why nothing was selected."""
        if not session.items:
            self._hints = hints.of_run(self._config)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Notes the criteria that are not asked with all of their cases."""
        self._deselected |= set(filter(None, (call_of(item).pair for item in items)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Asks, before the first test, for what tests need that is not the model's."""
        if not session.testsfailed and not self._config.option.collectonly:
            self._require_setup(selection.fixtures_of(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Makes the workers of xdist part of this run."""
        workers.tell_run_name(node, self._run.logs.name)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Asks once for all workers; what their tests take is not told to this process."""
        if ids and not self._has_asked and any(model_files(self._config)):
            self._has_asked = True
            self._require_setup({"server"})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes what a worker found out; all find out the same."""
        self._hints = workers.told(node) or self._hints
        self._deselected |= workers.deselected(node)

    def _require_setup(self, wanted: Container[str]) -> None:
        try:
            require_setup(self._run, wanted)
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from error

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the rows off a test's report, unless pytest-rerunfailures will run it again."""
        if report.outcome != "rerun":  # type: ignore[comparison-overlap]
            place = getattr(report, order.PLACE, ())
            self._report.take(getattr(report, outcomes.EVIDENCE, ()), place)
            self._repeats.take(report)
            if report.failed and not hasattr(report, outcomes.EVIDENCE):
                self._lost.append(report.nodeid)  # its worker crashed

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> None:
        """Prints model x criterion group with counts and worst margins."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            for hint in self._hints:
                terminalreporter.line(hint)
        if self._report.rows:
            terminalreporter.section("ascend-vlm")
            for line in [*closing_table(self._report.rows), *self._told]:
                terminalreporter.line(line)
            for line in doubtful_goldens(self._report.rows):
                terminalreporter.line(line, yellow=True, bold=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Writes the report, closes the gate, and says in the last line what was verified."""
        missing = gate_shortfalls(self._run, self._report.rows, self._deselected)
        if self._run.options.required is not None:
            missing += [f"{test} ended without a row: its worker crashed" for test in self._lost]
        is_written = self._write()
        if (missing or not is_written) and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._repeats.count()
        result = yield
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            for line in (f"gate: {problem}" for problem in missing):
                terminal.line(line)
            if self._report.rows:
                terminal.line(self._closing_line())
        return result

    def _closing_line(self) -> str:
        facts = {
            "platform": self._run.options.platform,
            "simulated": self._run.platform.simulated,
        }
        nowhere = origin(facts, self._report.rows) == "nothing"
        line = closing_line(self._report.rows, "no served model" if nowhere else where(self._run))
        return f"{line}; {len(self._lost)} lost with a worker that crashed" if self._lost else line

    def _write(self) -> bool:
        """Writes the report where one is wanted; False where the disk refuses it."""
        directory = self._run.options.report
        if directory is None:
            return True
        facts = receipt(self._run, list(self._config.invocation_params.args))
        try:
            paths = write(self._report, facts, directory)
        except OSError as error:
            self._told = [f"the report could not be written to {directory}: {error.strerror}"]
            return False
        self._told = [f"written: {path}" for path in paths]
        return True
