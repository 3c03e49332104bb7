"""Whether a value of a model file is a number. True and "24" are none."""

from __future__ import annotations

import math


def is_whole(value: object) -> bool:
    """True for an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """True for an integer or a float, but NaN and infinity."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
