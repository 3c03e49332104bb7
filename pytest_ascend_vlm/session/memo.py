"""Something slow, done once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import pytest

_T = TypeVar("_T")


class Memo(Generic[_T]):
    """Something slow that several criteria look at: done once, whatever it gives or raises."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._outcome: Future[_T] = Future()

    def __call__(self) -> _T:
        """What the work gave.

        Raises:
            Exception: what it raised, now or before.
        """
        if not self._outcome.done():
            try:
                self._outcome.set_result(self._work())
            except pytest.exit.Exception:  # the run ends; this is not what the work gave
                raise
            except Exception as error:
                self._outcome.set_exception(error)
        return self._outcome.result()
