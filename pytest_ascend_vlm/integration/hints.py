"""Hints for a run in which `-k` or `-m` selects no test."""

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

_MINIMUM_LETTERS = 3


def of_run(config: pytest.Config) -> list[str]:
    """The hints for a run in which no test was selected."""
    return hints(config.stash.get(COLLECTED, ()), config)


def hints(items: Sequence[pytest.Item], config: pytest.Config) -> list[str]:
    """Explains names in `-k` or `-m` that select no test, one line each.

    Returns nothing if no collected test belongs to a model: such a project does not use the suite.

    Args:
        items: the collected tests, before any was deselected.
        config: pytest's configuration, which contains the expressions.
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
        suggestion = f"; did you mean -k {name}?" if named else _suggestion(name, known)
        yield f"-m {name}: there is no such marker{suggestion}"


def _keywords(items: Sequence[pytest.Item], config: pytest.Config) -> Iterator[str]:
    words = {item: _words(item) for item in items}
    for name in sorted(names_in("-k", config.getoption("keyword"))):
        found = [item for item in items if _selects(name, words[item])]
        if not found:
            every = set().union(*words.values())
            suggestion = _suggestion(name, {part for word in every for part in _parts(word)})
            yield f"-k {name} matches no test{suggestion}"
        elif not any(is_asked_for(item, config) for item in found):
            of_found = {mark.name for item in found for mark in item.iter_markers()}
            needed = [marker for marker in OPT_IN_MARKERS if marker in of_found]
            if needed and not config.getoption("vlm_record"):
                yield f"-k {name} matches only tests that need -m {' or '.join(needed)}"


def _words(item: pytest.Item) -> set[str]:
    """The names that `-k` is matched against; pytest skips the session and the root directory."""
    names = {node.name for node in item.listchain()[2:]}
    return names | item.listextrakeywords() | {mark.name for mark in item.iter_markers()}


def _selects(name: str, words: Iterable[str]) -> bool:
    return any(name.lower() in word.lower() for word in words)


def _parts(word: str) -> Iterator[str]:
    """Yields a name and its words as suggestions, such as `capital` of `text/capital`."""
    yield word.partition("[")[0]
    yield from (part for part in re.findall(r"[^\W_]+", word) if len(part) >= _MINIMUM_LETTERS)


def _suggestion(name: str, known: Iterable[str]) -> str:
    by_lower_case = {one.lower(): one for one in sorted(known)}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    return f"; did you mean {by_lower_case[close[0]]}?" if close else ""
