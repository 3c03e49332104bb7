"""Analyses the expressions of `-m` and `-k` with pytest's own parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest

# Private, but present in every pytest since 8.0. It raises the error that pytest itself shows.
from _pytest.mark import _parse_expression

if TYPE_CHECKING:
    from _pytest.mark.expression import Expression


class _Undecided(Exception):
    """The result depends on a marker whose value has not been assumed yet."""

    def __init__(self, mark: tuple[object, ...]) -> None:
        super().__init__(mark)
        self.mark = mark


def require_wellformed(config: pytest.Config) -> None:
    """Rejects a malformed `-m` or `-k` before workers start: a worker cannot show a usage error.

    Raises:
        pytest.UsageError: one of the expressions is malformed.
    """
    for option, name in (("-m", "markexpr"), ("-k", "keyword")):
        _parsed(option, config.getoption(name))


def asks_for(marker: str, expression: str) -> bool:
    """True if a `-m` expression asks for a marker, and does not only exclude others.

    It asks for the marker if a set of other markers exists for which the expression is true with
    the marker and false without it. So `performance and image` asks for `performance`, but
    `not (performance or dataset)` does not. Word order, brackets and double negations make no
    difference.

    Raises:
        pytest.UsageError: the expression is malformed.
    """
    return _asks_for(marker, _parsed("-m", expression), {})


def _asks_for(marker: str, expression: Expression, others: Mapping[object, bool]) -> bool:
    def selects(has_marker: bool) -> bool:
        def matches(name: str, /, **arguments: object) -> bool:
            if name == marker:
                return has_marker
            mark = (name, *arguments.items())
            if mark not in others:
                raise _Undecided(mark)
            return others[mark]

        return expression.evaluate(matches)

    try:
        return selects(True) and not selects(False)
    except _Undecided as undecided:
        # Only markers that the evaluation reaches are assumed, so a long expression stays cheap.
        assumptions = ({**others, undecided.mark: value} for value in (False, True))
        return any(_asks_for(marker, expression, assumed) for assumed in assumptions)


def names_in(option: str, expression: str) -> set[str]:
    """The names in an expression of `-m` or `-k`.

    Raises:
        pytest.UsageError: the expression is malformed.
    """
    parsed = _parsed(option, expression)
    found: set[str] = set()

    def evaluate(is_true: Callable[[str], bool]) -> None:
        def matches(name: str, /, **_arguments: object) -> bool:
            found.add(name)
            return is_true(name)

        parsed.evaluate(matches)

    # `and` and `or` short-circuit, so one evaluation does not reach every name; several do.
    evaluate(lambda _: True)
    evaluate(lambda _: False)
    for name in sorted(found):
        evaluate(name.__eq__)
        evaluate(name.__ne__)
    return found


def _parsed(option: str, expression: str) -> Expression:
    return _parse_expression(expression, f"Wrong expression passed to '{option}'")
