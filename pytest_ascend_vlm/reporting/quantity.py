"""Measured values as a reader sees them."""

from __future__ import annotations

from typing import Any

from ..rounding import rounded


def with_unit(value: Any, unit: str) -> str:
    """A value with three significant digits and its unit; times below one second in ms."""
    if isinstance(value, str):  # NaN and infinity are strings in JSON
        return f"{value} {unit}".strip()
    if unit == "s" and abs(value) < 1:
        value, unit = value * 1000, "ms"
    return f"{rounded(value, 3)} {unit}".strip()


def interval(low: float | None, high: float | None, unit: str) -> str:
    """The ends of an interval, "(200 ms … –)"; an open end is a dash. Empty without an end."""
    shown = ["–" if end is None else with_unit(end, unit) for end in (low, high)]
    return "" if low is high is None else f"({' … '.join(shown)})"
