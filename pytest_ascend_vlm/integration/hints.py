"""What to type instead, where `-k` or `-m` selects nothing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence

import pytest

from ..criteria.criterion import criteria
from ..criteria.groups import OPT_IN_MARKERS
from .criterion_call import call_of
from .expressions import names_in
from .selection import COLLECTED, is_asked_for

_LEAST_LETTERS = 3


def of_run(config: pytest.Config) -> list[str]:
    """The hints of a run in which nothing was selected."""
    return hints(config.stash.get(COLLECTED, ()), config)


def hints(items: Sequence[pytest.Item], config: pytest.Config) -> list[str]:
    """Why none of some tests was selected, as far as a name in `-k` or `-m` tells.

    Says nothing where no test is of a model: there it is pytest's own affair.

    Args:
        items: the tests as they were collected, before any was left out.
        config: has the expressions.
    """
    if not any(call_of(item).model for item in items):
        return []
    registered = {re.split(r"[:(]", line)[0].strip() for line in config.getini("markers")}
    used = {mark.name for item in items for mark in item.iter_markers()}
    classes = {cls for item in items if (cls := call_of(item).suite_class) is not None}
    ids = {criterion.id for cls in classes for criterion, _ in criteria(cls)}
    return [*_markers(config, registered | used, ids), *_keywords(items, config)]


def _markers(config: pytest.Config, known: set[str], ids: set[str]) -> Iterator[str]:
    for name in sorted(names_in("-m", config.getoption("markexpr")) - known):
        named = any(name.lower() in one for one in ids)
        meant = f"; did you mean -k {name}?" if named else _meant(name, known)
        yield f"-m {name}: there is no such marker{meant}"


def _keywords(items: Sequence[pytest.Item], config: pytest.Config) -> Iterator[str]:
    words = {item: _words(item) for item in items}
    for name in sorted(names_in("-k", config.getoption("keyword"))):
        found = [item for item in items if _selects(name, words[item])]
        if not found:
            every = set().union(*words.values())
            meant = _meant(name, {part for word in every for part in _parts(word)})
            yield f"-k {name} matches no test{meant}"
        elif not any(is_asked_for(item, config) for item in found):
            of_found = {mark.name for item in found for mark in item.iter_markers()}
            needed = [marker for marker in OPT_IN_MARKERS if marker in of_found]
            if needed and not config.getoption("vlm_record"):
                yield f"-k {name} matches what runs only with -m {' or '.join(needed)}"


def _words(item: pytest.Item) -> set[str]:
    """What `-k` looks at: not the session, nor the root directory below it."""
    names = {node.name for node in item.listchain()[2:]}
    return names | item.listextrakeywords() | {mark.name for mark in item.iter_markers()}


def _selects(name: str, words: Iterable[str]) -> bool:
    return any(name.lower() in word.lower() for word in words)


def _parts(word: str) -> Iterator[str]:
    """What one may have meant of a name: all of it, or a part, `capital` of `text/capital`."""
    yield word.partition("[")[0]
    yield from (part for part in re.findall(r"[^\W_]+", word) if len(part) >= _LEAST_LETTERS)


def _meant(name: str, known: Iterable[str]) -> str:
    of_lower = {one.lower(): one for one in sorted(known)}
    close = difflib.get_close_matches(name.lower(), of_lower, n=1)
    return f"; did you mean {of_lower[close[0]]}?" if close else ""
