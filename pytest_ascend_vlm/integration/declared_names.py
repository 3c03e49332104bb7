"""Checks the names of cases in model files at collection, when the project's cases are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ..criteria.criterion import criteria
from ..errors import ConfigurationError
from ..session.run import Run
from ..spec.case import Case
from ..spec.model import ModelSpec


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
    of_cases = {one.id for one, _ in criteria(suite_class) if one.cases is not None}
    known = {case.id for case in cases}
    for failure in model.expected_failures:
        is_of_case = failure.criterion.partition("[")[0] in of_cases
        if is_of_case and failure.case and failure.case not in known:
            return (
                f"expected_failures has {failure.criterion}, and there is no case "
                f"{failure.case}, so nothing has to fail."
            )
    return None
