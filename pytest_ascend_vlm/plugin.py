"""The hooks: what pytest asks of the plugin, each handed to a module that does the work.

Nothing heavy is imported here, nor by what is imported here: a project that merely has the plugin
installed pays a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Container, Generator, Sequence
from typing import Any

import pytest

from . import options
from .errors import ConfigurationError
from .model_files import model_files
from .reporting import Report, write
from .reporting.summary import closing_line, closing_table
from .scheduling import xdist
from .suite import arguments, fixtures, hints, order, outcomes, selection
from .suite.expressions import require_wellformed
from .suite.run import RUN, Run
from .terminal import Progress

_COLLECTED = pytest.StashKey[Sequence[pytest.Item]]()
_MARKERS = (
    "npu: needs the served model on an Ascend NPU (or on the platform chosen by --vlm-platform)",
    "cpu_baseline: replays the reference engine on CPU; runs only where -m names it",
    "serving: the endpoint keeps the promises of the API",
    "determinism(runs=3): equal requests get equal answers; a test of your own that returns a "
    "completion is run that often and its answers compared",
    "accuracy: answers against the reference and the ground truth",
    "numerics: numbers against the reference",
    "performance: latency, throughput, CPU use; runs only where -m names it, and without -n",
    "dataset: scores of evaluation harnesses; runs only where -m names it",
    "robustness: limits, bad input, and what a server leaves behind",
    "vlm_criterion(criterion): the criterion that a test of the suite judges; set by the suite",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the `--vlm-*` options."""
    options.register(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Registers markers and fixtures and sets up the run."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    require_wellformed(config)
    xdist.refuse_performance(config)
    run = Run(options.read(config), Progress(config), xdist.run_name(config))
    config.stash[RUN] = run
    config.pluginmanager.register(fixtures, "ascend_vlm_fixtures")
    process = _Worker(config) if xdist.is_worker(config) else _Reporter(config, run)
    config.pluginmanager.register(process, "ascend_vlm_process")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Lets a criterion's name select it, and notes its place in the report."""
    selection.let_names_select(item)
    order.note(item)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ends what only collecting needed."""
    arguments.close(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The same where collecting was broken off."""
    arguments.close(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Says where models are served; nothing in a project that merely has the plugin installed."""
    if not any(str(arg).startswith("--vlm-") for arg in config.invocation_params.args):
        return []
    run = config.stash[RUN]
    served = f"platform {run.options.platform}, {run.options.checkpoint} checkpoints"
    logs = f", logs in {run.logs.home / run.logs.name}" if run.options.server_url is None else ""
    return [f"ascend-vlm: {served}{logs}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Asks a criterion with each case of its group."""
    selection.parametrize(metafunc, metafunc.config.stash[RUN])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what was not asked for; marks what does not apply or cannot run here."""
    run = config.stash[RUN]
    config.stash[_COLLECTED] = list(items)
    kept = [item for item in items if selection.is_asked_for(item, config)]
    removed = [item for item in items if item not in set(kept)]
    if removed:
        config.hook.pytest_deselected(items=removed)
        items[:] = kept
    selection.server_ends_last(items)
    for item in items:
        selection.mark(item, run)
    if xdist.is_worker(config):
        xdist.most_cards_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Shows a mistake in a model file as its message, that of a serve argument included."""
    report = yield
    checked = arguments.checked(collector, report, collector.config.stash[RUN])
    return outcomes.explain_collection(checked)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands models out by test class, whatever `--dist` says."""
    return xdist.make_scheduler(config, log)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Makes `-n auto` one worker for every usable card."""
    return xdist.auto_workers(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Repeats a test of the user's own that is marked `determinism`."""
    return selection.repeat_if_marked(pyfuncitem)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    """Counts what does not apply apart from skips, and draws no letter: one class has hundreds."""
    if outcomes.is_not_applicable(report):
        return "not applicable", "", "NOT APPLICABLE"
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows verdicts and set-up errors as their messages, and attaches the report's rows."""
    report = yield
    setattr(report, order.PLACE, order.place_of(item))
    return outcomes.finish(item, call, report, item.config.stash[RUN])


class _Worker:
    """What a worker of xdist finds out and another process prints."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Hands a usage error on: what a worker raises, xdist shows as a failure of its own."""
        try:
            return (yield)
        except pytest.UsageError as error:
            xdist.tell(self._config, [str(error), *_hints(self._config)])
            items.clear()
            return None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Hands on why nothing was selected."""
        if not session.items:
            xdist.tell(self._config, _hints(self._config))


def _hints(config: pytest.Config) -> list[str]:
    return hints.hints(config.stash.get(_COLLECTED, ()), config)


class _Reporter:
    """Gathers the rows in the process that prints, which under xdist is not the one that tests."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._report = Report()
        self._has_asked = False
        self._hints: list[str] = []
        self._told: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self) -> Generator[None, object, object]:
        """Adds what to type to pytest's refusal of a marker that a strict project does not know."""
        try:
            return (yield)
        except pytest.UsageError as error:
            raise pytest.UsageError("\n".join([str(error), *_hints(self._config)])) from error

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Finds out why nothing was selected."""
        if not session.items:
            self._hints = _hints(self._config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Asks, before the first test, for what tests need that is not the model's."""
        if not session.testsfailed and not self._config.option.collectonly:
            self._require_setup(selection.fixtures_of(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Makes the workers of xdist part of this run."""
        xdist.tell_run_name(node, self._run.logs.name)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Asks once for all workers; what their tests take is not told to this process."""
        if ids and not self._has_asked and any(model_files(self._config)):
            self._has_asked = True
            self._require_setup({"server"})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes what a worker found out; all find out the same."""
        self._hints = xdist.told(node) or self._hints

    def _require_setup(self, wanted: Container[str]) -> None:
        try:
            self._run.require_setup(wanted)
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from error

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the rows off a test's report, unless pytest-rerunfailures will run it again."""
        if report.outcome != "rerun":  # type: ignore[comparison-overlap]
            place = getattr(report, order.PLACE, ())
            self._report.take(getattr(report, outcomes.EVIDENCE, ()), place)

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

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Writes the report, closes the gate, and says in the last line what was verified."""
        missing = self._run.gate_shortfalls(self._report.rows)
        is_written = self._write()
        if (missing or not is_written) and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        result = yield
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            for line in (f"gate: {problem}" for problem in missing):
                terminal.line(line)
            if self._report.rows:
                terminal.line(closing_line(self._report.rows, self._run.where()))
        return result

    def _write(self) -> bool:
        """Writes the report where one is wanted; False where the disk refuses it."""
        directory = self._run.options.report
        if directory is None or not self._report.rows:
            return True
        receipt = self._run.receipt(list(self._config.invocation_params.args))
        try:
            paths = write(self._report, receipt, directory)
        except OSError as error:
            self._told = [f"the report could not be written to {directory}: {error.strerror}"]
            return False
        self._told = [f"written: {path}" for path in paths]
        return True
