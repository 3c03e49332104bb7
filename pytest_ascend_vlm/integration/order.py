"""The order of the report's rows: the criteria's, whatever order or worker tests ran in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import pytest

from .selection import criterion_of, model_of

PLACE = "ascend_vlm_place"
"""The attribute of a test's report that carries its place; xdist takes it to the controller."""

_PLACE = pytest.StashKey[tuple[int, ...]]()
_FIRST = pytest.StashKey[dict[Hashable, int]]()


def note(item: pytest.Item) -> None:
    """Notes the place of a test as it is collected, before anyone sorts or shuffles.

    By class as the files are read, by criterion as the catalogue lists them, by case as the cases
    are declared; a test of the user's own follows the criteria of its class.
    """
    if model_of(item) is None:
        return
    first = item.session.stash.setdefault(_FIRST, {})
    cls, what = item.cls, criterion_of(item)  # type: ignore[attr-defined]
    marker = item.get_closest_marker("vlm_criterion")
    declared = marker.args[0].id if marker else None
    number = first.setdefault(item.nodeid, len(first))
    item.stash[_PLACE] = (
        first.setdefault(cls, number),
        _catalogue().get(declared, len(_catalogue())),
        first.setdefault((cls, what), number),  # each variant and data set by itself
        number,
    )


def place_of(item: pytest.Item) -> Sequence[int]:
    """The place that the rows of a test take in the report."""
    return item.stash.get(_PLACE, ())


@cache
def _catalogue() -> dict[str | None, int]:
    from ..suite.catalogue import criteria

    return {what.id: index for index, (what, _, _) in enumerate(criteria())}
