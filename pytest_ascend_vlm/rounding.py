"""Formats numbers."""

from __future__ import annotations

import math

_EQUAL_TO_ONE = 1e-9
_SHORT_BELOW = 1e15


def rounded(value: float, digits: int) -> str:
    """A number with significant digits: "0.105", "12.3", "1270".

    One just below 1 has two digits of its distance to 1. Cosines and similarities are near 1, and 1
    is their threshold: 0.999968 is not shown as 1.
    """
    distance = 1 - abs(value)
    if _EQUAL_TO_ONE <= distance < 10 ** (1 - digits):
        return f"{value:.{1 + math.ceil(-math.log10(distance))}f}"
    # "1.27e+03 tok/s" is hard to read. 999.7 would be "1e+03" with three digits.
    is_long = 10**digits - 0.5 <= abs(value) < _SHORT_BELOW
    return f"{value:.0f}" if is_long else f"{value:.{digits}g}"
