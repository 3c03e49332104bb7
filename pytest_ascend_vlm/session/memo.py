"""A cache for the outcome of one slow computation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import pytest

_T = TypeVar("_T")


class Memo(Generic[_T]):
    """Runs a slow computation once, and keeps its result or exception for all callers."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._outcome: Future[_T] = Future()

    def __call__(self) -> _T:
        """The result of the computation.

        Raises:
            Exception: the exception that the computation raised, in this or an earlier call.
        """
        if not self._outcome.done():
            try:
                self._outcome.set_result(self._work())
            except pytest.exit.Exception:  # ends the run; not an outcome of the computation
                raise
            except Exception as error:
                self._outcome.set_exception(error)
        return self._outcome.result()
