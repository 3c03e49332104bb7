"""A criterion: its id, the capability that it needs, its cases and its documentation."""

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
"""Id of the criterion for variants; each variant's own name replaces `<variant>`."""

DATASET = "dataset.<task>"
"""Id of the criterion for data sets; each data set's own name replaces `<task>`."""

WORKLOAD = "performance.workload"
"""Id of the criterion for workloads; a workload's name is its case."""

LIMITS = "performance.limits"
"""Id of the criterion for declared limits."""

_NUMBER = re.compile(r"\{([a-z]\w*)(:[^{}]*)?\}")


class Cases(enum.Enum):
    """The cases that a criterion is parametrized with; the value is the case group."""

    ALL = "all"
    """Every case that the reference answers: all but the group `video`.

    Its clips are lossy, so their pixels depend on the decoder.
    """
    STILL = "still"
    """Every case without a video."""
    IMAGE = "image"
    """Every case with an image and no video, document pages included."""
    TEXT = "text"
    VIDEO = "video"
    """Every case with a video, those of the group `clip` included."""
    CLIP = "clip"
    SIZE = "size"
    ORDER = "order"
    DOCUMENT = "document"
    SCENE_TEXT = "scene_text"
    DOCUMENT_QUESTION = "document_question"
    CHART = "chart"
    REASONING = "reasoning"
    CHINESE = "chinese"
    GROUNDING = "grounding"

    def includes(self, case: Case) -> bool:
        """True if a case is one of these cases."""
        if self is Cases.IMAGE:
            return bool(case.every_image) and not case.videos
        if self is Cases.VIDEO:
            return bool(case.videos)
        if self is Cases.STILL:
            return not case.videos
        if self is Cases.ALL:
            return case.group != Cases.VIDEO.value
        return bool(self.value == case.group)


@dataclass(frozen=True)
class Criterion:
    """One criterion of the suite.

    Attributes:
        id: `<group>.<name>`; reports and expected failures use it.
        needs: the capability without which the criterion is not applicable.
        cases: the cases that it is parametrized with; None if it makes its own requests.
        known_failures: defects of released engines that affect every model; they are reported as
            expected failures.
        untaught: True if the criterion needs no right answer, so that it judges cases as well that
            a tiny checkpoint was not taught.
        ends_server: True if no server runs after the test.
        offline: the task of the offline engine whose result the criterion judges; an offline
            engine runs the tasks of all selected criteria. None if the criterion needs none.
    """

    id: str
    needs: Capability = Capability.TEXT
    cases: Cases | None = None
    known_failures: tuple[ExpectedFailure, ...] = ()
    untaught: bool = False
    ends_server: bool = False
    offline: str | None = None

    @property
    def group(self) -> Group:
        """The criterion's group."""
        return GROUPS[group_name(self.id)]

    def of(self, name: str) -> Criterion:
        """The criterion for one variant or data set of this name."""
        return dataclasses.replace(self, id=f"{group_name(self.id)}.{name}")


@dataclass(frozen=True)
class Documentation:
    """The two parts of a criterion's docstring.

    Attributes:
        text: the requirement and why it matters.
        if_this_fails: what to try if the criterion fails.
    """

    text: str
    if_this_fails: str


def documentation(test: Callable[..., Any]) -> Documentation:
    """The documentation of a criterion's test method, with the values of thresholds filled in.

    A docstring names a threshold as `{prefill_ratio}` or `{idle_cpu:.0%}`; the result has the
    default from `NUMBERS` in that format.
    """
    doc = _NUMBER.sub(_number, inspect.cleandoc(test.__doc__ or ""))
    text, _, advice = doc.partition("If this fails:")
    return Documentation(text.strip(), textwrap.dedent(advice).strip())


def criteria(of: type) -> Iterator[tuple[Criterion, Callable[..., Any]]]:
    """Yields every criterion of a test class and its test method, in the order of execution."""
    for base in reversed(of.__mro__):
        for test in vars(base).values():
            for marker in getattr(test, "pytestmark", []):
                if marker.name == MARKER:
                    yield marker.args[0], test


def _number(found: re.Match[str]) -> str:
    name, form = found[1], found[2] or ":g"
    return f"{{0{form}}}".format(NUMBERS[name]) if name in NUMBERS else found[0]
