"""Shows the tests of the hosts to pytest, as if they ran here."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from ..errors import VlmError
from ..integration import order, outcomes
from ..integration.selection import NOT_APPLICABLE


class Replay:
    """Calls pytest's hooks with the reports of tests that ran elsewhere.

    A test is shown when its last report is here. So of a host that dies, no test is shown in part.

    Attributes:
        ended: the node ids of the tests that were shown.
    """

    def __init__(self, config: pytest.Config, items: Iterable[pytest.Item]) -> None:
        self.ended: set[str] = set()
        self._hook = config.hook
        self._config = config
        self._items = {item.nodeid: item for item in items}
        self._open: dict[str, list[pytest.TestReport]] = {}

    def take(self, data: Mapping[str, Any], host: str, worker: str) -> None:
        """Takes a serialized report; shows its test if it is the last one.

        Args:
            data: the report, as pytest serializes it.
            host: the host that ran the test.
            worker: the name of its process.
        """
        report = self._hook.pytest_report_from_serializable(config=self._config, data=data)
        if report.nodeid not in self._items:
            return
        for name, value in getattr(report, outcomes.EVIDENCE, ()):
            if name == "vlm_model":
                value["host"] = host
        report.node = _as_node_of_xdist(host, worker)
        reports = self._open.setdefault(report.nodeid, [])
        reports.append(report)
        if report.when == "teardown":
            self._show(report.nodeid, self._open.pop(report.nodeid))

    def forget(self, tests: Iterable[str]) -> None:
        """Forgets the reports of tests that did not end."""
        for test in tests:
            self._open.pop(test, None)

    def fail(self, tests: Collection[str], reason: str, error: type[VlmError]) -> None:
        """Shows tests that cannot run as errors."""
        self._end(tests, error(reason))

    def skip(self, tests: Collection[str], reason: str) -> None:
        """Shows tests that cannot run as skipped."""
        self._end(tests, pytest.skip.Exception(reason))

    def _end(self, tests: Iterable[str], error: BaseException) -> None:
        self.forget(tests)
        for test in tests:
            item = self._items[test]
            reason = item.stash.get(NOT_APPLICABLE, None)
            ending = error if reason is None else pytest.skip.Exception(reason)
            phases = {"setup": _raising(ending), "teardown": lambda: None}
            reports = [_report(item, function, phase) for phase, function in phases.items()]
            self._show(test, reports)

    def _show(self, test: str, reports: Iterable[pytest.TestReport]) -> None:
        item = self._items[test]
        self._hook.pytest_runtest_logstart(nodeid=test, location=item.location)
        for report in reports:
            # The host collected other tests, so it counted other places.
            setattr(report, order.SORT_KEY, order.sort_key(item))
            self._hook.pytest_runtest_logreport(report=report)
        self._hook.pytest_runtest_logfinish(nodeid=test, location=item.location)
        if not any(str(report.outcome) == "rerun" for report in reports):
            self.ended.add(test)


@dataclass(frozen=True)
class _Gateway:
    id: str


@dataclass(unsafe_hash=True)
class _Node:
    """The part of a node of xdist that pytest shows: `[atlas1-0]` before a test and its failure.

    Pytest's JUnit file finds a test's reports by it, and its terminal keeps a text in it.
    """

    gateway: _Gateway
    workerinfo: Mapping[str, Any] = field(hash=False)


def _as_node_of_xdist(host: str, worker: str) -> _Node:
    python = {"sysplatform": sys.platform, "version_info": tuple(sys.version_info)}
    return _Node(_Gateway(worker), {"id": worker, "executable": f"on {host}", **python})


def _raising(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


def _report(item: pytest.Item, function: Any, phase: Any) -> pytest.TestReport:
    call: pytest.CallInfo[None] = pytest.CallInfo.from_call(function, phase)
    report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
    return report
