"""The order of the report's rows: the criteria's, whatever order or worker tests ran in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import pytest

from ..criteria.criterion import criteria
from .criterion_call import call_of

PLACE = "ascend_vlm_place"
"""The attribute of a test's report that carries its place; xdist takes it to the controller."""

_PLACE = pytest.StashKey[tuple[int, ...]]()
_FIRST = pytest.StashKey[dict[Hashable, int]]()


def note(item: pytest.Item) -> None:
    """Notes the place of a test as it is collected, before anyone sorts or shuffles.

    By class as the files are read, by criterion as its class lists them, by case as the cases are
    declared; a test of the user's own follows the criteria of its class.
    """
    call = call_of(item)
    if call.model is None or call.suite_class is None:
        return
    first = item.session.stash.setdefault(_FIRST, {})
    number = first.setdefault(item.nodeid, len(first))
    listed = _listed(call.suite_class)
    id_ = call.criterion.id if call.criterion else None
    item.stash[_PLACE] = (
        first.setdefault(call.suite_class, number),
        listed.get(call.declared.id, len(listed)) if call.declared else len(listed),
        first.setdefault((call.suite_class, id_), number),  # each variant and data set by itself
        number,
    )


def place_of(item: pytest.Item) -> Sequence[int]:
    """The place that the rows of a test take in the report."""
    return item.stash.get(_PLACE, ())


@cache
def _listed(suite_class: type) -> dict[str, int]:
    """Criterion id -> its number in the class."""
    return {criterion.id: number for number, (criterion, _) in enumerate(criteria(suite_class))}
