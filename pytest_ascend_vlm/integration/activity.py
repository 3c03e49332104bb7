"""The events of a process that runs tests: its test, and the work that it does for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import pytest

from ..progress import Step
from .criterion_call import call_of
from .replaced import really_runs

JUDGING = "judging"
ENDING = "ending"

MAIN = "main"
"""The worker of an event in a run without workers."""

EventCallback = Callable[[Mapping[str, Any]], None]

_EVERY_SECONDS = 0.5
"""An event is not sent more often if only its numbers have changed."""


class Activity:
    """Sends an event when a test begins, and for each step of the work.

    It is also the callback for the steps of long operations.

    Attributes:
        send: takes the events.
    """

    def __init__(self) -> None:
        self.send: EventCallback = lambda _: None
        self._test: dict[str, Any] = {}
        self._phase = ""
        self._sent_at = 0.0

    def __call__(self, step: Step) -> None:
        """Sends the step that the current test is in."""
        now = time.monotonic()
        if step.phase == self._phase and now - self._sent_at < _EVERY_SECONDS:
            return
        self._phase, self._sent_at = step.phase, now
        self.send(
            {
                "event": "phase",
                "worker": MAIN,
                **self._test,
                "phase": step.phase,
                "detail": step.detail,
                "seconds": step.seconds,
                "budget_seconds": step.budget_seconds,
            }
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Sends the test that begins, if it has a model and really runs."""
        call = call_of(item)
        if call.model is None or call.suite_class is None or not really_runs(item):
            return
        self._test = {
            "nodeid": item.nodeid,
            "suite_class": call.suite_class.__name__,
            "model": call.model.model_id,
        }
        self._phase = ""
        criterion = call.name or item.name
        self.send({"event": "begin", "worker": MAIN, **self._test, "criterion": criterion})

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Sends that the test judges."""
        if self._test.get("nodeid") == item.nodeid:
            self(Step(JUDGING))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Sends that a class ends, which stops its server, and that it has ended."""
        is_last = nextitem is None or nextitem.parent is not item.parent
        if is_last and self._test:
            self(Step(ENDING))
        try:
            return (yield)
        finally:
            if is_last and self._test:
                self.send({"event": "ended", "worker": MAIN, **self._test})
                self._test = {}
