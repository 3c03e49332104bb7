"""Measured values as a reader sees them."""

from __future__ import annotations

import math
from typing import Any

_EQUAL_TO_ONE = 1e-9


def rounded(value: float, digits: int) -> str:
    """A number with significant digits; one just below 1 with two digits of its distance to 1.

    Cosines and similarities are near 1, and 1 is their threshold: 0.999968 is not shown as 1.
    """
    distance = 1 - abs(value)
    if _EQUAL_TO_ONE <= distance < 10 ** (1 - digits):
        return f"{value:.{1 + math.ceil(-math.log10(distance))}f}"
    return f"{value:.{digits}g}"


def with_unit(value: Any, unit: str) -> str:
    """A value with three significant digits and its unit; times below one second in ms."""
    if isinstance(value, str):  # NaN and infinity are strings in JSON
        return f"{value} {unit}".strip()
    if unit == "s" and abs(value) < 1:
        value, unit = value * 1000, "ms"
    digits = rounded(value, 3) if abs(value) < 100 else f"{value:.0f}"
    return f"{digits} {unit}".strip()


def interval(low: float | None, high: float | None, unit: str) -> str:
    """The ends of an interval, "(200 ms … –)"; an open end is a dash. Empty without an end."""
    shown = ["–" if end is None else with_unit(end, unit) for end in (low, high)]
    return "" if low is high is None else f"({' … '.join(shown)})"
