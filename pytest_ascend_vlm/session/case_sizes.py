"""Cases by the sizes of their images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from ..spec.case import Case
from ..spec.case_files import image_size

Sizes = tuple[tuple[int, int], ...]
"""Width and height of each image of a case, in pixels; empty for a case without images."""


def pixels(case: Case) -> int:
    """Number of pixels of all images of a case."""
    return sum(map(math.prod, _sizes(case)))


def by_size(cases: Iterable[Case]) -> dict[Sizes, list[Case]]:
    """Sizes of the images -> the cases with such images, in the order of the cases."""
    found: dict[Sizes, list[Case]] = {}
    for case in cases:
        found.setdefault(_sizes(case), []).append(case)
    return found


def in_turns(groups: Iterable[list[Case]]) -> list[Case]:
    """The first case of each group, then the second of each, until all groups have ended."""
    turns = itertools.chain.from_iterable(itertools.zip_longest(*groups))
    return [case for case in turns if case is not None]


def _sizes(case: Case) -> Sizes:
    return tuple(map(image_size, case.every_image))
