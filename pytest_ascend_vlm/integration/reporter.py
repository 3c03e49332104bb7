"""Collects the rows in the process that prints, writes the report, and prints the summary."""

from __future__ import annotations

from collections.abc import Container, Generator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import ConfigurationError
from ..model_files import model_files
from ..session.run import Run
from . import workers

if TYPE_CHECKING:
    from ..reporting.resume import Earlier
    from .closing import Closing
    from .journal import RunJournal
    from .live import Live
    from .takeover import Takeover

PROCESS = "ascend_vlm_process"
"""The name of the plugin that collects (`Reporter`) or sends (`workers.Worker`) the rows."""


class Reporter:
    """Collects the rows of all tests and reports them; runs in the controller of workers."""

    def __init__(self, config: pytest.Config, run: Run, takeover: Takeover) -> None:
        self._config = config
        self._run = run
        self._takeover = takeover
        self._journal: RunJournal | None = None
        self._setup_checked = False
        self._has_collected = False
        self._hints: list[str] = []
        self._deselected: set[tuple[str, str]] = set()

    @cached_property
    def _closing(self) -> Closing:
        from .closing import Closing

        return Closing(self._run)

    @cached_property
    def _live(self) -> Live:
        from .live import Live

        return Live(self._config)

    @property
    def _has_closing(self) -> bool:
        """False in a project without tests, a gate or a report, which needs no closing."""
        options = self._run.options
        return bool("_closing" in vars(self) or options.required is not None or options.report)

    @property
    def earlier(self) -> Earlier | None:
        """The runs whose verdicts tests may take over."""
        return self._takeover.earlier

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Reads the verdicts to take over, before xdist starts workers."""
        if not self._config.option.collectonly and not self._run.is_spread:
            self.read_earlier()

    def read_earlier(self) -> None:
        """Reads the verdicts to take over; on a cluster as soon as its hosts are known.

        Raises:
            pytest.UsageError: there is no journal, or this run has another set-up.
        """
        if self._run.options.resume is None:
            return
        from .resume import earlier_of

        try:
            self._takeover.earlier = earlier_of(self._run, self._run.options.resume)
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from error

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Adds hints to pytest's error about a marker that a strict project does not know."""
        self._has_collected = bool(items)
        try:
            return (yield)
        except pytest.UsageError as error:
            raise pytest.UsageError("\n".join([str(error), *self._hints_of_run()])) from error

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Collects hints if no test was selected."""
        if not session.items and self._has_collected:
            self._hints = self._hints_of_run()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Notes the criteria with at least one deselected case."""
        from .criterion_call import pairs_of

        self._deselected |= pairs_of(items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Checks endpoints and directories before the first test."""
        if session.items and not session.testsfailed and not self._config.option.collectonly:
            from .criterion_call import call_of
            from .selection import fixtures_of

            self._require_setup(fixtures_of(session.items))
            has_models = any(call_of(item).model for item in session.items)
            if has_models and not self._run.is_spread:  # a cluster's hosts are not known yet
                self.begin([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Sends a worker of xdist the name of this run before it starts; takes its events."""
        workers.send_run_name(node, self._run.logs.name)
        workers.listen(node, self.take_event)
        if self.earlier is not None:
            workers.send_earlier(node, self.earlier)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Checks endpoints and directories once for all workers.

        The controller does not know the fixtures of the workers' tests: it assumes `device_slot`.
        """
        if ids and not self._setup_checked and any(model_files(self._config)):
            self._setup_checked = True
            self._require_setup({"device_slot"})
            self.begin(ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes the hints and deselected criteria of a worker; all workers have the same."""
        self._hints = workers.messages(node) or self._hints
        self._deselected |= workers.deselected(node)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the rows of a test's report."""
        self._closing.take(report)
        if self._journal is not None:
            self._journal.take(report)
        if "_live" in vars(self):
            self._live.take_report(report)

    def pytest_enter_pdb(self) -> None:
        """Ends the display: the debugger writes past pytest."""
        self._end_display()

    def begin(self, tests: Sequence[str]) -> None:
        """Begins the journal, if the run writes a report, and the display.

        Args:
            tests: node ids of the selected tests.
        """
        from .journal import begin, events_before

        before = events_before(self._run, self.earlier)
        self._live.begin(tests, before)
        argv = self._config.invocation_params.args
        self._journal = begin(self._run, argv, len(tests), before)

    def note(self, line: str) -> None:
        """Shows a line about the run now, and stores it in the report."""
        self._closing.notes.append(line)
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.line(line)

    def take_event(self, event: Mapping[str, Any]) -> None:
        """Takes an event of a process that runs tests; workers call it from other threads."""
        if self._journal is not None:
            self._journal.take_event(event)
        if event["event"] == "again":
            self._closing.again.append(event)
        self._live.take_event(event)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> None:
        """Prints a table of models and criterion groups with counts and worst margins."""
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            for hint in self._hints:
                terminalreporter.line(hint)
        if self._has_closing and (table := self._closing.table()):
            terminalreporter.section("ascend-vlm")
            for line in table:
                terminalreporter.line(line)
            for line in self._closing.doubts():
                terminalreporter.line(line, yellow=True, bold=True)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Writes the report, evaluates the gate, and prints what was verified in the last line."""
        self._end_display()
        was_refused = session.exitstatus == pytest.ExitCode.USAGE_ERROR
        if was_refused or not self._has_closing:  # the report of an earlier run stays
            return (yield)
        missing = self._closing.shortfalls(self._deselected)
        is_written = self._closing.write(self._config.invocation_params.args, self.earlier)
        self._closing.write_step_summary()
        if (missing or not is_written) and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self._journal is not None:
            self._closing.written += self._journal.end(session.exitstatus)
        self._closing.add_counts()
        result = yield
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            for line in (f"gate: {problem}" for problem in missing):
                terminal.line(line)
            if last := self._closing.last_line():
                terminal.line(last)
        return result

    def _require_setup(self, fixtures: Container[str]) -> None:
        from ..session.setup import require_setup
        from .append import require_appendable

        try:
            require_setup(self._run, fixtures)
            if not self._run.is_spread:  # a cluster's hosts are not known yet
                require_appendable(self._run)
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from error

    def _end_display(self) -> None:
        if "_live" in vars(self):
            self._live.end()

    def _hints_of_run(self) -> list[str]:
        from . import hints

        return hints.of_run(self._config)
