"""The table of bad servers is total: every criterion has a test that sees it fail."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_ascend_vlm import VLMConformance
from pytest_ascend_vlm.criteria.criterion import criteria


def test_every_criterion_has_a_test_that_sees_it_fail() -> None:
    known = {criterion.id for criterion, _ in criteria(VLMConformance)}
    marked = set(named_by_markers())
    unseen, unknown = sorted(known - marked), sorted(marked - known)
    assert not unseen, f"no test is marked to see these fail: @pytest.mark.catches(*{unseen})"
    assert not unknown, f"the catalogue has no such criteria: {unknown}"


def named_by_markers() -> Iterator[str]:
    """What the markers `catches` of all tests name, whichever tests are selected."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(path.stem)
        for name, test in vars(module).items():
            if name.startswith("test_"):
                yield from _named(getattr(test, "pytestmark", ()))


def _named(marks: Any) -> Iterator[str]:
    for mark in marks:
        if mark.name == "catches":
            yield from mark.args
        elif mark.name == "parametrize":
            for values in mark.args[1]:
                yield from _named(getattr(values, "marks", ()))


# --- the marker is held to its word --------------------------------------------------------------

ROW = {"criterion": "serving.text", "status": "fail", "measured": 0.5}


@pytest.mark.parametrize(
    ("marked", "row", "outcome"),
    [
        ("serving.text", {}, "passed"),
        ("equivalence.<variant>", {"criterion": "equivalence.eager"}, "passed"),
        ("dataset.<task>", {"criterion": "dataset.docvqa_val"}, "passed"),
        ("serving.image", {}, "failed"),
        ("serving.text", {"status": "error"}, "failed"),
        ("serving.text", {"status": "xfail"}, "failed"),
        ("serving.text", {"measured": None}, "failed"),
    ],
    ids=["own", "variant", "data set", "another", "error", "expected failure", "not its own rule"],
)
def test_a_marker_that_claims_too_much_fails_its_test(
    marked: str, row: dict[str, Any], outcome: str, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest("from helpers.catching import pytest_pyfunc_call")
    pytester.makepyfile(
        f"""
import pytest
from helpers.catching import seen

@pytest.mark.catches("{marked}")
def test_it():
    seen({{"rows": [{ {**ROW, **row} }]}})
"""
    )
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(**{outcome: 1})
    if outcome == "failed":
        result.stdout.fnmatch_lines([f"*no report that this test read shows a failure of {marked}"])


def test_what_another_test_read_does_not_count(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from helpers.catching import pytest_pyfunc_call")
    pytester.makepyfile(
        f"""
import pytest
from helpers.catching import seen

def test_one():
    seen({{"rows": [{ROW}]}})

@pytest.mark.catches("serving.text")
def test_other():
    pass
"""
    )
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest", "-p", "no:randomly")
    result.assert_outcomes(passed=1, failed=1)
