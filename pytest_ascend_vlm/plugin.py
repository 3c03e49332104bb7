"""The plugin's pytest hooks; each calls the module that does the work.

pytest loads this module at every start, also in projects that only have the plugin installed. So
a hook imports its module when it runs, and nothing heavy is imported here: the plugin costs such a
project a few milliseconds (benchmarks/startup_tax.py).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from .criteria.groups import MARKERS
from .integration import fixtures, options, workers
from .integration.activity import Activity
from .integration.expressions import require_wellformed
from .integration.reporter import PROCESS, Reporter
from .integration.takeover import Takeover
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
    activity = Activity()
    run = Run(options.read(config), activity, workers.run_name(config))
    config.stash[RUN] = run
    config.pluginmanager.register(fixtures, "ascend_vlm_fixtures")
    takeover = Takeover(run)
    is_worker = workers.is_worker(config)
    process = workers.Worker(config, takeover) if is_worker else Reporter(config, run, takeover)
    activity.send = takeover.send = process.take_event
    config.pluginmanager.register(process, PROCESS)
    config.pluginmanager.register(takeover, "ascend_vlm_takeover")
    config.pluginmanager.register(activity, "ascend_vlm_activity")


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
    from .integration import selection

    selection.parametrize(metafunc, metafunc.config.stash[RUN])


def pytest_itemcollected(item: pytest.Item) -> None:
    """Lets `-k` select a criterion by its id, and stores the order of the report's rows."""
    from .integration import order, selection

    selection.let_names_select(item)
    order.note(item)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Checks serve arguments, and shows a mistake in a model file without a traceback."""
    run, problem = collector.config.stash[RUN], None
    if run.options.serve_overrides:
        from .integration import serve_overrides

        problem = serve_overrides.apply(collector, run)
    report = yield
    if not report.failed and not isinstance(collector, pytest.Class):
        return report
    from .integration import declared_names, outcomes, serve_arguments

    if not (problem or report.failed):
        problem = declared_names.problem(collector, run)
    report = serve_arguments.check(collector, report, run, problem)
    return outcomes.explain_collection(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Deselects tests that were not asked for; marks those that do not apply or cannot run."""
    if not items:
        return (yield)
    from .integration import selection

    selection.select(config, items)
    result = yield  # pytest deselects by -k and -m
    selection.settle(items, config.stash[RUN])
    if workers.is_worker(config):
        from .scheduling import xdist

        xdist.largest_models_first(items)
    return result


def pytest_collection_finish(session: pytest.Session) -> None:
    """Ends the process that checked serve arguments during collection."""
    if session.items:
        from .integration import serve_arguments

        serve_arguments.close(session.config)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Distributes tests to workers by test class, independent of `--dist`."""
    from .scheduling import xdist

    return xdist.make_scheduler(config, log)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Makes `-n auto` start one worker per usable card."""
    from .scheduling import xdist

    return xdist.auto_workers(config)


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Hands the tests to a Ray cluster (`--vlm-ray`); without one pytest runs them here."""
    if session.config.stash[RUN].options.ray is None:
        return None
    from .scheduling import driver

    return driver.run_loop(session)


@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Restarts a server that an earlier test ended, once the test's fixtures are set up."""
    fixtures.keep_server_running(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Lets a test that judges fail if it ends without a verdict, or passes where it must fail."""
    result = yield
    from .integration import outcomes

    outcomes.require_verdict(item, item.config.stash[RUN])
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Repeats a user's own test that is marked `determinism`."""
    from .integration import own_tests

    return own_tests.repeat_if_marked(pyfuncitem)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    """Counts separately: tests that are not applicable, and repetitions of an earlier error."""
    from .integration import findings, outcomes

    return outcomes.status(report) or findings.status(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows verdicts and set-up errors as their messages, and attaches the report's rows."""
    from .integration import order, outcomes

    report = yield
    setattr(report, order.SORT_KEY, order.sort_key(item))
    return outcomes.finish(item, call, report, item.config.stash[RUN])
