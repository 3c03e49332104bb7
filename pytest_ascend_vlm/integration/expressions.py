"""What `-m` and `-k` ask for, read by pytest's own grammar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest

# Private, but in every pytest since 8.0; its error is the one that pytest itself would show.
from _pytest.mark import _parse_expression

if TYPE_CHECKING:
    from _pytest.mark.expression import Expression


class _Undecided(Exception):
    """The result depends on a marker of which nothing was assumed yet."""

    def __init__(self, mark: tuple[object, ...]) -> None:
        super().__init__(mark)
        self.mark = mark


def require_wellformed(config: pytest.Config) -> None:
    """Refuses a malformed `-m` or `-k` before workers are started, which cannot refuse in words.

    Raises:
        pytest.UsageError: one of them is malformed.
    """
    for option, name in (("-m", "markexpr"), ("-k", "keyword")):
        _parsed(option, config.getoption(name))


def asks_for(marker: str, expression: str) -> bool:
    """Whether a `-m` expression asks for a marker, and not merely for all but it.

    It does if some test is selected because it has the marker: with it the expression holds,
    without it it does not, and the test's other markers are the same. So `performance and image`
    asks for performance, `not (performance or dataset)` does not, and the order of its words, its
    brackets and double negations change nothing.

    Raises:
        pytest.UsageError: the expression is malformed.
    """
    return _asks_for(marker, _parsed("-m", expression), {})


def _asks_for(marker: str, expression: Expression, others: Mapping[object, bool]) -> bool:
    def holds(has_it: bool) -> bool:
        def matches(name: str, /, **arguments: object) -> bool:
            if name == marker:
                return has_it
            mark = (name, *arguments.items())
            if mark not in others:
                raise _Undecided(mark)
            return others[mark]

        return expression.evaluate(matches)

    try:
        return holds(True) and not holds(False)
    except _Undecided as undecided:
        # Only what the evaluation asks about is tried, so a long expression takes few steps.
        tried = ({**others, undecided.mark: value} for value in (False, True))
        return any(_asks_for(marker, expression, assumed) for assumed in tried)


def names_in(option: str, expression: str) -> set[str]:
    """The names in an expression of `-m` or `-k`.

    Raises:
        pytest.UsageError: the expression is malformed.
    """
    parsed = _parsed(option, expression)
    found: set[str] = set()

    def ask(is_true: Callable[[str], bool]) -> None:
        def matches(name: str, /, **_arguments: object) -> bool:
            found.add(name)
            return is_true(name)

        parsed.evaluate(matches)

    # An evaluation does not look behind what settles it: several see what one does not.
    ask(lambda _: True)
    ask(lambda _: False)
    for name in sorted(found):
        ask(name.__eq__)
        ask(name.__ne__)
    return found


def _parsed(option: str, expression: str) -> Expression:
    return _parse_expression(expression, f"Wrong expression passed to '{option}'")
