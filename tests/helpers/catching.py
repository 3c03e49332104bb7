"""The marker `catches`: a test that sees criteria fail, and the check that it really does.

    @pytest.mark.catches("serving.video", "equivalence.<variant>")

contains the criteria's ids as in the catalogue. Every criterion needs such a test
(test_catching.py). The test itself fails unless it read the report of a run in which each of them
fails.
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
    """Returns the report, after noting for the running test which criteria fail in it.

    Only a failure with a measured value counts. A failure without one is not the criterion's own:
    the degeneration guard failed first, or an expected failure passed.
    """
    rows = report["rows"] if report else ()
    failed = [row for row in rows if row["status"] == "fail" and row["measured"] is not None]
    _failed.update(_in_catalogue(row["criterion"]) for row in failed)
    return report


def _in_catalogue(criterion: str) -> str:
    """The id in the catalogue; criteria of variants and data sets share one."""
    return _TEMPLATES.get(criterion.partition(".")[0], criterion)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Fails a test that passed but did not see each of its criteria fail."""
    _failed.clear()
    result = yield
    named = {name for mark in pyfuncitem.iter_markers("catches") for name in mark.args}
    unseen = named - _failed
    assert not unseen, f"no report that this test read shows a failure of {', '.join(unseen)}"
    return result
