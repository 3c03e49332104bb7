"""Orders the report's rows by declaration, independent of the order in which tests ran."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import pytest

from ..criteria.criterion import criteria
from .criterion_call import call_of

SORT_KEY = "ascend_vlm_sort_key"
"""The attribute of a test's report that holds its sort key; xdist sends it to the controller."""

_SORT_KEY = pytest.StashKey[tuple[int, ...]]()
_FIRST = pytest.StashKey[dict[Hashable, int]]()


def note(item: pytest.Item) -> None:
    """Stores the sort key of a test at collection, before a plugin sorts or shuffles the tests.

    Rows are sorted by class in the order of collection, then by criterion in the order of the
    class, then by case in the order of declaration. A user's own tests follow the criteria of their
    class.
    """
    call = call_of(item)
    if call.model is None or call.suite_class is None:
        return
    first = item.session.stash.setdefault(_FIRST, {})
    number = first.setdefault(item.nodeid, len(first))
    listed = _listed(call.suite_class)
    id_ = call.criterion.id if call.criterion else None
    of_class = first.setdefault(call.suite_class, number)
    # All but the first are places in the class, because reports of several runs are merged by them.
    item.stash[_SORT_KEY] = (
        of_class,
        listed.get(call.declared.id, len(listed)) if call.declared else len(listed),
        first.setdefault((call.suite_class, id_), number) - of_class,  # keeps a variant's together
        number - of_class,
    )


def sort_key(item: pytest.Item) -> Sequence[int]:
    """The key that the rows of a test are sorted by in the report."""
    return item.stash.get(_SORT_KEY, ())


@cache
def _listed(suite_class: type) -> dict[str, int]:
    """Criterion id -> its index in the order of the class."""
    return {criterion.id: number for number, (criterion, _) in enumerate(criteria(suite_class))}
