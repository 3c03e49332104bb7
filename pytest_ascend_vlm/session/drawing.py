"""Draws examples with hypothesis: the same in every run, whatever else a run has imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import hypothesis
    from hypothesis.strategies import SearchStrategy

# Hypothesis draws some integers from the source code of the modules that are imported. Code has no
# number of this size, so the examples do not depend on what else a run has imported.
_FAR = 1 << 44

_T = TypeVar("_T")


def uniform(values: Sequence[_T]) -> SearchStrategy[_T]:
    """One of the values, each position equally likely; shrinks to the first."""
    from hypothesis import strategies

    drawn = strategies.integers(_FAR, _FAR + len(values) - 1)
    return drawn.map(lambda number: values[number - _FAR])


def settings(**changes: Any) -> hypothesis.settings:
    """Hypothesis' settings for a server: each example counts, and none is stored."""
    import hypothesis

    return hypothesis.settings(
        derandomize=True,
        database=None,
        deadline=None,
        # It is about the time that drawing takes, and a busy host draws slowly.
        suppress_health_check=(hypothesis.HealthCheck.too_slow,),
        verbosity=hypothesis.Verbosity.quiet,
        report_multiple_bugs=False,
        print_blob=False,
        **changes,
    )


def drawn(strategy: SearchStrategy[_T], examples: int) -> list[_T]:
    """Examples of a strategy, without any test of them.

    Args:
        strategy: the strategy.
        examples: their number; fewer if the strategy has fewer.
    """
    import hypothesis

    found: list[_T] = []

    @settings(max_examples=examples, phases=(hypothesis.Phase.generate,))
    @hypothesis.given(strategy)
    def keep(example: _T) -> None:
        found.append(example)

    keep()
    return found
