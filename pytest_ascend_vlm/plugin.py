"""The hooks: what pytest asks of the plugin, each handed to a module that does the work.

Nothing heavy is imported here, and what only tests of models need is imported when there is one: a
project that merely has the plugin installed pays a few milliseconds (benchmarks/startup_tax.py).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from .criteria.groups import MARKERS
from .integration import fixtures, options, workers
from .integration.expressions import require_wellformed
from .integration.progress import Progress
from .integration.reporter import Reporter
from .session.run import RUN, Run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the `--vlm-*` options."""
    options.register(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Registers markers and fixtures and sets up the run."""
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    require_wellformed(config)
    options.refuse_parallel(config)
    run = Run(options.read(config), Progress(config), workers.run_name(config))
    config.stash[RUN] = run
    config.pluginmanager.register(fixtures, "ascend_vlm_fixtures")
    process = workers.Worker(config) if workers.is_worker(config) else Reporter(config, run)
    config.pluginmanager.register(process, "ascend_vlm_process")


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
    from .integration import selection

    selection.parametrize(metafunc, metafunc.config.stash[RUN])


def pytest_itemcollected(item: pytest.Item) -> None:
    """Lets a criterion's name select it, and notes its place in the report."""
    from .integration import order, selection

    selection.let_names_select(item)
    order.note(item)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Shows a mistake in a model file as its message, that of a serve argument included."""
    report = yield
    if not report.failed and not isinstance(collector, pytest.Class):
        return report
    from .integration import outcomes, serve_arguments

    checked = serve_arguments.checked(collector, report, collector.config.stash[RUN])
    return outcomes.explain_collection(checked)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what was not asked for; marks what does not apply or cannot run here."""
    if items:
        from .integration import selection

        selection.select(config, items)
    if items and workers.is_worker(config):
        from .scheduling import xdist

        xdist.largest_models_first(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ends what only collecting needed."""
    if session.items:
        from .integration import serve_arguments

        serve_arguments.close(session.config)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands models out by test class, whatever `--dist` says."""
    from .scheduling import xdist

    return xdist.make_scheduler(config, log)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Makes `-n auto` one worker for every usable card."""
    from .scheduling import xdist

    return xdist.auto_workers(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Repeats a test of the user's own that is marked `determinism`."""
    from .integration import own_tests

    return own_tests.repeat_if_marked(pyfuncitem)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    """Counts apart what does not apply, and what an error stopped that is told at another test."""
    from .integration import findings, outcomes

    return outcomes.status(report) or findings.status(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows verdicts and set-up errors as their messages, and attaches the report's rows."""
    from .integration import order, outcomes

    report = yield
    setattr(report, order.PLACE, order.place_of(item))
    return outcomes.finish(item, call, report, item.config.stash[RUN])
