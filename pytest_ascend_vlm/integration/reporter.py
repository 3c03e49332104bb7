"""Collects the rows in the process that prints, writes the report, and prints the summary."""

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
    """Collects the rows of all tests and reports them; under xdist it runs in the controller."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._report = Report()
        self._repeats = findings.Repeats()
        self._setup_checked = False
        self._hints: list[str] = []
        self._written: list[str] = []
        self._deselected: set[tuple[str, str]] = set()
        self._crashed: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self) -> Generator[None, object, object]:
        """Adds hints to pytest's error about a marker that a strict project does not know."""
        try:
            return (yield)
        except pytest.UsageError as error:
            raise pytest.UsageError("\n".join([str(error), *hints.of_run(self._config)])) from error

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Collects hints if no test was selected."""
        if not session.items:
            self._hints = hints.of_run(self._config)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Notes the criteria with at least one deselected case."""
        self._deselected |= set(filter(None, (call_of(item).pair for item in items)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Checks endpoints and directories before the first test."""
        if not session.testsfailed and not self._config.option.collectonly:
            self._require_setup(selection.fixtures_of(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Sends the name of this run to a worker of xdist before it starts."""
        workers.send_run_name(node, self._run.logs.name)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Checks endpoints and directories once for all workers.

        The controller does not know the fixtures of the workers' tests, so it assumes `server`.
        """
        if ids and not self._setup_checked and any(model_files(self._config)):
            self._setup_checked = True
            self._require_setup({"server"})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes the hints and deselected criteria of a worker; all workers have the same."""
        self._hints = workers.messages(node) or self._hints
        self._deselected |= workers.deselected(node)

    def _require_setup(self, fixtures: Container[str]) -> None:
        try:
            require_setup(self._run, fixtures)
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from error

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the rows of a test's report, unless pytest-rerunfailures will run it again."""
        if report.outcome != "rerun":  # type: ignore[comparison-overlap]
            key = getattr(report, order.SORT_KEY, ())
            self._report.take(getattr(report, outcomes.EVIDENCE, ()), key)
            self._repeats.take(report)
            if report.failed and not hasattr(report, outcomes.EVIDENCE):
                self._crashed.append(report.nodeid)  # its worker crashed

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> None:
        """Prints a table of models and criterion groups with counts and worst margins."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            for hint in self._hints:
                terminalreporter.line(hint)
        if self._report.rows:
            terminalreporter.section("ascend-vlm")
            for line in [*closing_table(self._report.rows), *self._written]:
                terminalreporter.line(line)
            for line in doubtful_goldens(self._report.rows):
                terminalreporter.line(line, yellow=True, bold=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Writes the report, evaluates the gate, and prints what was verified in the last line."""
        missing = gate_shortfalls(self._run, self._report.rows, self._deselected)
        if self._run.options.required is not None:
            missing += [f"{test} has no row: its worker crashed" for test in self._crashed]
        is_written = self._write()
        if (missing or not is_written) and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._repeats.add_counts()
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
        nothing_judged = origin(facts, self._report.rows) == "nothing"
        place = "no served model" if nothing_judged else where(self._run)
        line = closing_line(self._report.rows, place)
        if not self._crashed:
            return line
        return f"{line}; {len(self._crashed)} lost with a worker that crashed"

    def _write(self) -> bool:
        """Writes the report if `--vlm-report` names a directory; False if writing fails."""
        directory = self._run.options.report
        if directory is None:
            return True
        facts = receipt(self._run, list(self._config.invocation_params.args))
        try:
            paths = write(self._report, facts, directory)
        except OSError as error:
            self._written = [f"the report could not be written to {directory}: {error.strerror}"]
            return False
        self._written = [f"written: {path}" for path in paths]
        return True
