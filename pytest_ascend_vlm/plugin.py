"""The plugin's pytest hooks; each calls the module that does the work.

Neither this module nor its imports import anything heavy: pytest loads them at every start, also
in projects that only have the plugin installed.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from .criteria.groups import MARKERS
from .integration import (
    findings,
    fixtures,
    hints,
    options,
    order,
    outcomes,
    own_tests,
    selection,
    serve_arguments,
    workers,
)
from .integration.expressions import require_wellformed
from .integration.progress import Progress
from .integration.reporter import Reporter
from .scheduling import xdist
from .session.run import RUN, Run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the `--vlm-*` options."""
    options.register(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Registers markers and fixtures and sets up the run."""
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    require_wellformed(config)
    xdist.refuse_parallel(config)
    run = Run(options.read(config), Progress(config), workers.run_name(config))
    config.stash[RUN] = run
    config.pluginmanager.register(fixtures, "ascend_vlm_fixtures")
    process = workers.Worker(config) if workers.is_worker(config) else Reporter(config, run)
    config.pluginmanager.register(process, "ascend_vlm_process")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Lets `-k` select a criterion by its id, and stores the order of the report's rows."""
    selection.let_names_select(item)
    order.note(item)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ends the process that checked serve arguments during collection."""
    serve_arguments.close(session.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends that process after a collection that was interrupted."""
    serve_arguments.close(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The platform, the checkpoints and the log directory; empty without a `--vlm-*` option."""
    if not any(str(arg).startswith("--vlm-") for arg in config.invocation_params.args):
        return []
    run = config.stash[RUN]
    served = f"platform {run.options.platform}, {run.options.checkpoint} checkpoints"
    logs = f", logs in {run.logs.home / run.logs.name}" if run.options.server_url is None else ""
    return [f"ascend-vlm: {served}{logs}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrizes a criterion with the cases of its group."""
    selection.parametrize(metafunc, metafunc.config.stash[RUN])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests that were not asked for; marks those that do not apply or cannot run."""
    run = config.stash[RUN]
    config.stash[hints.COLLECTED] = list(items)
    kept = [item for item in items if selection.is_asked_for(item, config)]
    removed = [item for item in items if item not in set(kept)]
    if removed:
        config.hook.pytest_deselected(items=removed)
        items[:] = kept
    selection.server_ends_last(items)
    for item in items:
        selection.mark(item, run)
    if workers.is_worker(config):
        xdist.largest_models_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Checks serve arguments, and shows a mistake in a model file without a traceback."""
    report = yield
    report = serve_arguments.check(collector, report, collector.config.stash[RUN])
    return outcomes.explain_collection(report)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distributes tests to workers by test class, independent of `--dist`."""
    return xdist.make_scheduler(config, log)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Makes `-n auto` start one worker per usable card."""
    return xdist.auto_workers(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Repeats a user's own test that is marked `determinism`."""
    return own_tests.repeat_if_marked(pyfuncitem)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    """Counts separately: tests that are not applicable, and repetitions of an earlier error."""
    return outcomes.status(report) or findings.status(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows verdicts and set-up errors as their messages, and attaches the report's rows."""
    report = yield
    setattr(report, order.SORT_KEY, order.sort_key(item))
    return outcomes.finish(item, call, report, item.config.stash[RUN])
