"""What makes a test method a criterion: its id, what it needs, which cases it is asked with."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from ..spec.model import Capability, ExpectedFailure

Test = TypeVar("Test", bound=Callable[..., None])


class NotApplicable(pytest.skip.Exception):  # type: ignore[name-defined, misc]
    """A criterion cannot apply to a model as it is declared; the message is the reason.

    A type of its own, because it opens a gate and a skip does not.
    """


VARIANT = "equivalence.<variant>"
"""Id of the criterion that each variant of a model is judged by under its own name."""

DATASET = "dataset.<task>"
"""Id of the criterion that each data set of a model is judged by under its own name."""


@dataclass(frozen=True)
class Criterion:
    """One criterion of the suite.

    Attributes:
        id: `<group>.<name>`; reports and expected failures use it.
        needs: without this capability the criterion is not applicable.
        cases: the group of cases it is asked with ("text", "image", "document", "all"; a document
            is an image too; "all" leaves out clips), or None where it makes its own requests.
        known_failures: defects of released engines that hit every model; reported, not failed.
        ends_server: whether it leaves no server behind for the next test.
        offline: the task of the offline engines that it looks at; they do those that are selected.
    """

    id: str
    needs: Capability = Capability.TEXT
    cases: str | None = None
    known_failures: tuple[ExpectedFailure, ...] = ()
    ends_server: bool = False
    offline: str | None = None

    @property
    def group(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    def of(self, name: str) -> Criterion:
        """The criterion of one variant or data set."""
        return dataclasses.replace(self, id=f"{self.group}.{name}")


@dataclass(frozen=True)
class Documentation:
    """A criterion's docstring, taken apart.

    Attributes:
        text: what it asks and why it matters.
        if_this_fails: what to try.
    """

    text: str
    if_this_fails: str


_MARKERS = {
    "serving": ("serving",),
    "determinism": ("determinism",),
    "baseline": ("accuracy",),
    "document": ("accuracy",),
    "tasks": ("accuracy",),
    "dataset": ("dataset",),
    "lifecycle": ("robustness",),
    "numerics": ("numerics",),
    "equivalence": ("numerics",),
    "performance": ("performance",),
    "reference": ("cpu_baseline",),
}


def criterion(what: Criterion, *markers: str) -> Callable[[Test], Test]:
    """Makes a test method a criterion.

    Args:
        what: the criterion.
        markers: pytest markers on top of those of its group.
    """

    def mark(test: Test) -> Test:
        for name in (*_MARKERS[what.group], *markers):
            test = getattr(pytest.mark, name)(test)
        if what.group != "reference":
            test = pytest.mark.npu(test)
        marked: Test = pytest.mark.vlm_criterion(what)(test)
        return marked

    return mark


def documentation(test: Callable[..., Any]) -> Documentation:
    """The documentation of a criterion's test method."""
    doc = inspect.cleandoc(test.__doc__ or "")
    text, _, advice = doc.partition("If this fails:")
    return Documentation(text.strip(), textwrap.dedent(advice).strip())
