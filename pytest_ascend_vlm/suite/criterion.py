"""The decorator that makes a test method a criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from ..criteria.criterion import Criterion
from ..criteria.groups import MARKER

Test = TypeVar("Test", bound=Callable[..., None])


def criterion(id_: str, *markers: str, **attributes: Any) -> Callable[[Test], Test]:
    """Makes a test method a criterion.

    Args:
        id_: the criterion's id, "document.lines".
        markers: pytest markers in addition to the marker of its group.
        attributes: the other attributes of `Criterion`: `needs=...`, `cases=...`.
    """
    declared = Criterion(id_, **attributes)
    server = ("npu",) if declared.group.needs_server else ()

    def mark(test: Test) -> Test:
        for name in (declared.group.marker, *server, *markers):
            test = getattr(pytest.mark, name)(test)
        marked: Test = getattr(pytest.mark, MARKER)(declared)(test)
        return marked

    return mark
