"""Formats durations."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """A duration, rounded like an estimate: "40 s", "4 min", "2.5 h"."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
