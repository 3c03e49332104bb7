"""Checks the names of cases and rows in model files at collection, when the cases are known."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pytest

from ..criteria.criterion import criteria
from ..errors import ConfigurationError
from ..session.run import Run
from ..spec.case import Case
from ..spec.model import ModelSpec
from ..spec.request_rows import REQUEST_ROWS, request_names


def problem(collector: pytest.Collector, run: Run) -> str | None:
    """What names no case in the model of a test class, or what is wrong with the cases, or None."""
    suite_class = getattr(collector, "obj", None)
    model = getattr(suite_class, "model", None)
    if not isinstance(suite_class, type) or not isinstance(model, ModelSpec):
        return None
    try:
        cases = run.cases
    except ConfigurationError as error:  # no case of a model without a checkpoint is read before
        return str(error)
    found = _prompt_problem(model, cases) or _failure_problem(model, suite_class, cases)
    return found and f"{collector.nodeid}: {found}"


def _prompt_problem(model: ModelSpec, cases: Sequence[Case]) -> str | None:
    groups = sorted({case.group for case in cases})
    known = {*groups, *(case.id for case in cases)}
    if not (unknown := sorted(model.prompts.keys() - known)):
        return None
    return (
        f"prompts has {', '.join(unknown)}, and no case has that group or id. "
        f"The groups are {', '.join(groups)}."
    )


def _failure_problem(model: ModelSpec, suite_class: type, cases: Sequence[Case]) -> str | None:
    asked = {criterion.id: (criterion, test) for criterion, test in criteria(suite_class)}
    case_ids = [case.id for case in cases]
    for failure in model.expected_failures:
        name = failure.criterion.partition("[")[0]
        if not failure.case or name not in asked:
            continue
        criterion, test = asked[name]
        of_case = criterion.cases is not None
        what, known = ("case", case_ids) if of_case else ("row", _rows_of(name, test))
        if known is not None and failure.case not in known:
            (nearest,) = difflib.get_close_matches(failure.case, known, n=1, cutoff=0)
            return (
                f"expected_failures has {failure.criterion}, and there is no {what} "
                f"{failure.case}, so nothing has to fail. The nearest {what} is {nearest}."
            )
    return None


def _rows_of(criterion: str, test: object) -> Sequence[str] | None:
    """The rows that a criterion can have; None if they depend on the model."""
    if criterion in REQUEST_ROWS:
        return request_names()
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    return [str(value) for value in marks[0].args[1]] if len(marks) == 1 else None
