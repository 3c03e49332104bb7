"""The criterion, model and parameters of a test, read from its class and marker once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from ..criteria.criterion import Criterion
from ..criteria.groups import MARKER, OWN_GROUP
from ..reporting.rows import name_of
from ..spec.case import Case
from ..spec.dataset import DatasetTask
from ..spec.model import ModelSpec, Variant


@dataclass(frozen=True)
class CriterionCall:
    """The criterion, model and parameters of a test.

    Attributes:
        declared: the criterion as the suite declares it; None for a user's own test.
        criterion: `declared` under the name of the variant or data set, if the test is
            parametrized with one; otherwise `declared` itself.
        judged: the criterion that the test's verdicts are for: `criterion`, or `own.<test>` of a
            user's own test that takes `judge`; None for a test that gives no verdict.
        suite_class: the test's class, or None.
        model: the model of that class, or None.
        case_id: the text between the brackets of the test's id, usually the case's id.
        case: the case that the test is parametrized with, or None.
        variant: the variant that the test is parametrized with, or None.
        task: the data set that the test is parametrized with, or None.
    """

    declared: Criterion | None
    criterion: Criterion | None
    judged: Criterion | None
    suite_class: type | None
    model: ModelSpec | None
    case_id: str | None
    case: Case | None
    variant: Variant | None
    task: DatasetTask | None

    @property
    def pair(self) -> tuple[str, str] | None:
        """The test class and the criterion, as a gate lists them; None for a user's own test."""
        if self.criterion is None or self.suite_class is None:
            return None
        return self.suite_class.__name__, self.criterion.id

    @property
    def name(self) -> str | None:
        """The criterion with its case, as messages and reports name it.

        None for a user's own test.
        """
        return name_of(self.criterion.id, self.case_id) if self.criterion else None


_CALL = pytest.StashKey[CriterionCall]()


def call_of(item: pytest.Item) -> CriterionCall:
    """The criterion, model and parameters of a test; resolved once."""
    if _CALL not in item.stash:
        item.stash[_CALL] = _resolve(item)
    return item.stash[_CALL]


def pairs_of(items: Iterable[pytest.Item]) -> set[tuple[str, str]]:
    """The test classes and criteria of tests, as a gate lists them."""
    return {pair for item in items if (pair := call_of(item).pair) is not None}


def declared_criterion(node: pytest.Item) -> Criterion | None:
    """The criterion that a test function declares, before it is parametrized."""
    marker = node.get_closest_marker(MARKER)
    return marker.args[0] if marker else None


def _resolve(item: pytest.Item) -> CriterionCall:
    callspec = getattr(item, "callspec", None)
    parameters: dict[str, Any] = callspec.params if callspec is not None else {}
    declared, cls = declared_criterion(item), getattr(item, "cls", None)
    variant, task = parameters.get("variant"), parameters.get("task")
    case, model = parameters.get("case"), getattr(cls, "model", None)
    parameter = variant or task
    criterion = declared.of(parameter.name) if declared and parameter else declared
    return CriterionCall(
        declared=declared,
        criterion=criterion,
        judged=criterion or _own_criterion(item),
        suite_class=cls,
        model=model if isinstance(model, ModelSpec) else None,
        case_id=callspec.id if callspec is not None else None,
        case=case if isinstance(case, Case) else None,
        variant=variant,
        task=task,
    )


def _own_criterion(item: pytest.Item) -> Criterion | None:
    if "judge" not in getattr(item, "fixturenames", ()):
        return None
    return Criterion(f"{OWN_GROUP}.{getattr(item, 'originalname', item.name)}")
