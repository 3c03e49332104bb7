"""Rule of grid.cliffs: no number of requests is slower than both its neighbours."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..observation.grid import Burst, GridRow
from .performance import TimeRatio, median_ratio
from .verdict import Verdict, at_most, largest


@dataclass(frozen=True)
class _Step:
    """A number of requests beside its neighbours.

    Attributes:
        level: the number.
        fewer: time a request here divided by that of the next smaller number.
        more: the same, by that of the next larger number.
    """

    level: int
    fewer: TimeRatio
    more: TimeRatio

    @property
    def height(self) -> float:
        """How much slower it is than both neighbours, at least."""
        return min(self.fewer.low, self.more.low)


def judge_cliffs(row: GridRow, threshold: float) -> Verdict:
    """A number of requests is at most `threshold` times slower a request than both its neighbours.

    The time a request is that of the burst divided by the number of its requests. It is compared
    with the neighbours' of the same round, and judged is the lower end of the 95 % interval.

    Args:
        row: the bursts of one image size, at three numbers of requests or more.
        threshold: the largest ratio.
    """
    steps = [
        _Step(level, _ratio(row, level, fewer), _ratio(row, level, more))
        for fewer, level, more in zip(row.levels, row.levels[1:], row.levels[2:], strict=False)
    ]
    worst = largest(steps, lambda step: step.height)
    place = row.levels.index(worst.level)
    fewer, more = row.levels[place - 1], row.levels[place + 1]
    return at_most(
        worst.height,
        threshold,
        "x (lower end of the 95 % interval)",
        f"time a request at {', '.join(map(str, row.levels))} at once, with an image of "
        f"{row.width} x {row.height}; the slowest beside its neighbours is {worst.level}",
        (
            f"{worst.level} at once divided by {fewer}: {worst.fewer}",
            f"{worst.level} at once divided by {more}: {worst.more}",
        ),
        {"grid": _evidence(row)},
    )


def _ratio(row: GridRow, level: int, other: int) -> TimeRatio:
    return median_ratio(
        [(one[level].seconds_per_request, one[other].seconds_per_request) for one in row.rounds]
    )


def _evidence(row: GridRow) -> dict[str, Any]:
    bursts = [row.at(level) for level in row.levels]
    return {
        "width": row.width,
        "height": row.height,
        "levels": list(row.levels),
        "ttft_s": [_ttft(found) for found in bursts],
        "request_throughput": [
            1 / statistics.median(burst.seconds_per_request for burst in found) for found in bursts
        ],
    }


def _ttft(bursts: Sequence[Burst]) -> float:
    return statistics.median(itertools.chain(*(burst.ttft_seconds for burst in bursts)))
