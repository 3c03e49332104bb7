"""The marker `catches`: a test that sees criteria fail, and what holds it to its word.

    @pytest.mark.catches("serving.video", "equivalence.<variant>")

names criteria as the catalogue does. Every criterion needs such a test (test_catching.py). The test
itself fails unless it read a report, of a run of the suite, in which each of them fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import pytest

from pytest_ascend_vlm.criteria.criterion import DATASET, VARIANT

Report = TypeVar("Report", bound=Any)

_TEMPLATES = {template.partition(".")[0]: template for template in (VARIANT, DATASET)}
_failed: set[str] = set()


def seen(report: Report) -> Report:
    """The report; what fails in it counts for the test that runs now.

    Only a failure with a measured value counts. One without is not the criterion's own: the guard
    against degenerate answers came first, or an expected failure did not fail.
    """
    rows = report["rows"] if report else ()
    failed = [row for row in rows if row["status"] == "fail" and row["measured"] is not None]
    _failed.update(_in_catalogue(row["criterion"]) for row in failed)
    return report


def _in_catalogue(criterion: str) -> str:
    """A variant's or a data set's own criterion as the catalogue has it."""
    return _TEMPLATES.get(criterion.partition(".")[0], criterion)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Fails a test that passed without having seen what it is marked to catch."""
    _failed.clear()
    result = yield
    named = {name for mark in pyfuncitem.iter_markers("catches") for name in mark.args}
    unseen = named - _failed
    assert not unseen, f"no report that this test read shows a failure of {', '.join(unseen)}"
    return result
