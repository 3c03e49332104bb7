"""The diagnosis of a model as a whole: the parts that its results point to, in order."""

from __future__ import annotations

from collections.abc import Sequence

from .pattern import Pattern, Row
from .rules import RULES
from .suspects import NEXT, TITLES, Part, Suspect

__all__ = ["NEXT", "TITLES", "Part", "Suspect", "diagnose"]


def diagnose(rows: Sequence[Row]) -> tuple[Suspect, ...]:
    """One or two suspects, the likelier one first; empty if nothing fails or no rule knows it.

    Args:
        rows: the rows of one test class, as in report.json.
    """
    pattern = Pattern(rows)
    return next((found for rule in RULES if (found := rule(pattern))), ())
