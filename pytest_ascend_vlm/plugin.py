"""The hooks: what pytest asks of the plugin, each handed to a module that does the work.

Nothing heavy is imported here, nor by what is imported here: a project that merely has the plugin
installed pays a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from . import options
from .reporting import Report, write
from .reporting.summary import closing_line, closing_table, doubtful_goldens
from .scheduling import xdist
from .suite import arguments, findings, fixtures, outcomes, selection
from .suite.run import RUN, Run
from .terminal import Progress

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
    xdist.refuse_performance(config)
    run = Run(options.read(config), Progress(config))
    config.stash[RUN] = run
    config.pluginmanager.register(fixtures, "ascend_vlm_fixtures")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Reporter(config, run), "ascend_vlm_reporter")


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
    options = run.options
    return [
        f"ascend-vlm: platform {options.platform}, {options.checkpoint} checkpoints, "
        f"servers' logs in {options.log_dir}"
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Asks a criterion with each case of its group."""
    selection.parametrize(metafunc, metafunc.config.stash[RUN])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what was not asked for; marks what does not apply or cannot run here."""
    run = config.stash[RUN]
    kept = [item for item in items if selection.is_asked_for(item, config)]
    removed = [item for item in items if item not in set(kept)]
    if removed:
        config.hook.pytest_deselected(items=removed)
        items[:] = kept
    selection.server_ends_last(items)
    for item in items:
        selection.mark(item, run)
    if hasattr(config, "workerinput"):
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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows verdicts and set-up errors as their messages, and attaches the report's rows."""
    report = yield
    return outcomes.finish(item, call, report, item.config.stash[RUN])


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> tuple[str, str, str] | None:
    """Counts apart what an error stopped that is told at another test."""
    return findings.status(report)


class _Reporter:
    """Gathers the rows in the process that prints, which under xdist is not the one that tests."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._config = config
        self._run = run
        self._report = Report()
        self._repeats = findings.Repeats()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes the rows off a test's report, unless pytest-rerunfailures will run it again."""
        if report.outcome != "rerun":  # type: ignore[comparison-overlap]
            self._report.take(getattr(report, outcomes.EVIDENCE, ()))
            self._repeats.take(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints model x criterion group with counts and worst margins, and writes the report."""
        if not self._report.rows:
            return
        terminalreporter.section("ascend-vlm")
        for line in closing_table(self._report.rows):
            terminalreporter.line(line)
        for line in doubtful_goldens(self._report.rows):
            terminalreporter.line(line, yellow=True, bold=True)
        directory = self._run.options.report
        if directory is not None:
            argv = list(self._config.invocation_params.args)
            for path in write(self._report, self._run.receipt(argv), directory):
                terminalreporter.line(f"written: {path}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Closes the gate, and says as the last line of all what was verified and what was not."""
        missing = self._run.gate_shortfalls(self._report.rows)
        if missing and session.exitstatus in {
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
                terminal.line(closing_line(self._report.rows, self._run.where()))
        return result
