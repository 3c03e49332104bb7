"""Lets tests take over the verdicts of an earlier run (`--vlm-resume`) instead of judging again.

A test that takes a verdict over requests no fixture, so no server starts for it. It has a report
like any other test: counts, JUnit XML and the gate see its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..errors import VlmError
from ..session.run import Run
from .activity import MAIN, EventCallback
from .criterion_call import CriterionCall, call_of
from .replaced import ROWS, really_runs, replace

if TYPE_CHECKING:
    from ..reporting.resume import Earlier


class Takeover:
    """Decides what the tests of a class take over, before the first of them runs.

    Attributes:
        send: takes the events: what each class is judged with, and why it is judged again.
        earlier: the earlier runs; None if nothing is taken over.
        is_on_cluster: True in a test process of a cluster, whose host is a condition of its own.
    """

    def __init__(self, run: Run) -> None:
        self.send: EventCallback = lambda _: None
        self.earlier: Earlier | None = None
        self.is_on_cluster = False
        self._run = run
        self._begun: set[type] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Begins a class with its first test that is not skipped."""
        is_told = self.is_on_cluster or self._run.options.report is not None
        if not is_told and self.earlier is None:
            return
        call = call_of(item)
        if call.model is None or call.suite_class is None or not really_runs(item):
            return
        if call.suite_class not in self._begun:
            self._begun.add(call.suite_class)
            self._begin(item, call)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> object | None:
        """Replaces a test that takes a verdict over."""
        return True if ROWS in pyfuncitem.stash else None

    def _begin(self, item: pytest.Item, call: CriterionCall) -> None:
        facts = self._facts(item, call)
        if facts is None:
            return
        self.send({"event": "class", "worker": MAIN, **facts})
        if self.earlier is None:
            return
        found = self.earlier.taken_over(facts)
        if found.refused:
            owner = {"model": facts["model"], "suite_class": facts["suite_class"]}
            because = list(found.refused)
            self.send({"event": "again", "worker": MAIN, **owner, "because": because})
        for other in item.session.items:
            rows = found.rows.get(other.nodeid)
            if rows and really_runs(other):
                replace(other, rows)

    def _facts(self, item: pytest.Item, call: CriterionCall) -> dict[str, Any] | None:
        """What a class is judged with; None if that is not known, and so nothing is taken over.

        The class's first test tells what is wrong with a checkpoint.
        """
        from ..session.conditions import class_conditions, own_conditions
        from ..session.model import ModelSession

        if call.model is None or call.suite_class is None or self._run.options.server_url:
            return None
        sources = dict(_sources(call.suite_class, item.path, item.config.rootpath))
        try:
            told = class_conditions(ModelSession(self._run, call.model), sources)
        except (VlmError, OSError):
            return None
        if self.is_on_cluster:
            told["conditions"] |= own_conditions(self._run)
        return {"model": call.model.model_id, "suite_class": call.suite_class.__name__, **told}


def _sources(suite_class: type, test_file: Path, root: Path) -> Iterator[tuple[str, Path]]:
    """The files that declare a class, its bases and fixtures; the suite has a digest of its own."""
    import inspect

    package = __name__.partition(".")[0]
    bases = (one for one in suite_class.__mro__ if one.__module__.partition(".")[0] != package)
    files = [Path(inspect.getfile(one)) for one in bases if one is not object]
    files += [directory / "conftest.py" for directory in test_file.parents]
    for path in dict.fromkeys(path for path in files if path.is_file()):
        yield str(path.relative_to(root) if path.is_relative_to(root) else path), path
