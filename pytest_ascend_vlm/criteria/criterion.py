"""What a criterion is: its id, what it needs, which cases it is parametrized with, its docs."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..spec.case import Capability, Case
from ..spec.model import ExpectedFailure
from ..spec.thresholds import NUMBERS
from .groups import GROUPS, MARKER, Group, group_name

VARIANT = "equivalence.<variant>"
"""Id of the criterion that each variant of a model is judged by under its own name."""

DATASET = "dataset.<task>"
"""Id of the criterion that each data set of a model is judged by under its own name."""

_NUMBER = re.compile(r"\{([a-z]\w*)(:[^{}]*)?\}")


class Cases(enum.Enum):
    """The cases that a criterion is parametrized with; the value is the case group."""

    ALL = "all"
    """Every case without a clip."""
    IMAGE = "image"
    """Every case with an image; a page is one."""
    TEXT = "text"
    VIDEO = "video"
    DOCUMENT = "document"
    SCENE_TEXT = "scene_text"
    DOCUMENT_QUESTION = "document_question"
    CHART = "chart"
    REASONING = "reasoning"
    CHINESE = "chinese"
    GROUNDING = "grounding"

    def includes(self, case: Case) -> bool:
        """Whether a case belongs to them."""
        if self is Cases.IMAGE:
            return bool(case.images)
        if self is Cases.ALL:
            return not case.videos
        return bool(self.value == case.group)


@dataclass(frozen=True)
class Criterion:
    """One criterion of the suite.

    Attributes:
        id: `<group>.<name>`; reports and expected failures use it.
        needs: without this capability the criterion is not applicable.
        cases: the cases that it is parametrized with; None where it makes its own requests.
        known_failures: defects of released engines that hit every model; reported, not failed.
        ends_server: whether it leaves no server behind for the next test.
        offline: the task of the offline engines whose result it judges; they do those that are
            selected.
    """

    id: str
    needs: Capability = Capability.TEXT
    cases: Cases | None = None
    known_failures: tuple[ExpectedFailure, ...] = ()
    ends_server: bool = False
    offline: str | None = None

    @property
    def group(self) -> Group:
        """The group that it belongs to."""
        return GROUPS[group_name(self.id)]

    def of(self, name: str) -> Criterion:
        """The criterion of one variant or data set."""
        return dataclasses.replace(self, id=f"{group_name(self.id)}.{name}")


@dataclass(frozen=True)
class Documentation:
    """A criterion's docstring, taken apart.

    Attributes:
        text: what it asks and why it matters.
        if_this_fails: what to try.
    """

    text: str
    if_this_fails: str


def documentation(test: Callable[..., Any]) -> Documentation:
    """The documentation of a criterion's test method, with the numbers of the thresholds in it.

    A docstring names a threshold, `{prefill_ratio:g}`, where a reader sees its default.
    """
    doc = _NUMBER.sub(_number, inspect.cleandoc(test.__doc__ or ""))
    text, _, advice = doc.partition("If this fails:")
    return Documentation(text.strip(), textwrap.dedent(advice).strip())


def criteria(of: type) -> Iterator[tuple[Criterion, Callable[..., Any]]]:
    """Every criterion of a test class with its test method, in the order in which they run."""
    for base in reversed(of.__mro__):
        for test in vars(base).values():
            for marker in getattr(test, "pytestmark", []):
                if marker.name == MARKER:
                    yield marker.args[0], test


def _number(found: re.Match[str]) -> str:
    name, form = found[1], found[2] or ":g"
    return f"{{0{form}}}".format(NUMBERS[name]) if name in NUMBERS else found[0]
