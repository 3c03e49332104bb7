"""Statistics of measured times, each with its interval, and what a number of values cannot tell."""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

QUANTILES = {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
"""Statistic -> quantile."""

_CONFIDENCE = 0.95
_TAIL = (1 - _CONFIDENCE) / 2
_ALWAYS = "median"
_REPEATED = frozenset({"itl", "user_throughput", "decode_throughput"})
# Two-sided 95 % quantiles of Student's t, by degrees of freedom; the last one for all others.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Metric:
    """One measured value.

    Attributes:
        name: `<measurement>.<quantity>.<statistic>`: "image.ttft.median",
            "load.c8.output_throughput".
        value: the value.
        unit: "s", "tok/s", "req/s", "%", "MiB".
        low: lower end of the value's 95 % interval; None if it has none, or the interval is open.
        high: upper end.
    """

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None

    @property
    def more_is_better(self) -> bool:
        """True for a throughput."""
        return self.unit in {"tok/s", "req/s"}

    @property
    def is_typical(self) -> bool:
        """True for a metric that two runs are compared by: medians, means and throughputs.

        Tails scatter too much. ITL and the throughputs of a user repeat TPOT and latency.
        """
        if self.name.split(".")[-2] in _REPEATED:
            return False
        return self.more_is_better or self.name.endswith((".median", ".mean"))


def samples_needed(quantile: float) -> int:
    """Number of values of which the largest is above a quantile in 95 % of all runs.

    The largest of fewer values may be below the quantile, so they cannot tell it: p90 needs 29, p95
    59 and p99 299 values.
    """
    return math.ceil(math.log(1 - _CONFIDENCE) / math.log(quantile))


def told(count: int) -> tuple[str, ...]:
    """The statistics in `QUANTILES` that a number of values can tell; the median always."""
    return tuple(
        name
        for name, quantile in QUANTILES.items()
        if name == _ALWAYS or count >= samples_needed(quantile)
    )


def cannot_tell(count: int) -> str:
    """The quantiles that a number of values cannot tell, each with the number that it needs."""
    missing = (
        f"{name} (at least {samples_needed(quantile)})"
        for name, quantile in QUANTILES.items()
        if name not in told(count)
    )
    return ", ".join(missing)


def distribution(name: str, values: Sequence[float], unit: str = "s") -> tuple[Metric, ...]:
    """Mean, median, p90, p95 and p99 with their intervals, as far as the values can tell them.

    Args:
        name: the measurement and the quantity, the first part of the metrics' names.
        values: at least one value.
        unit: the unit of the values.
    """
    of_quantiles = (
        Metric(
            f"{name}.{statistic}",
            float(np.quantile(values, QUANTILES[statistic])),
            unit,
            *_ends(quantile_bounds(values, QUANTILES[statistic])),
        )
        for statistic in told(len(values))
    )
    return (
        Metric(f"{name}.mean", statistics.fmean(values), unit, *_ends(mean_bounds(values))),
        *of_quantiles,
    )


def mean_bounds(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of values that are not negative, by Student's t.

    It is unbounded for a single value. So few values as three may leave it open below.
    """
    if len(values) < 2:
        return 0.0, math.inf
    quantile = _T[min(len(values) - 1, len(_T)) - 1]
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return max(mean - half, 0.0), mean + half


def median_bounds(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median of values that are not negative: that of the sign test.

    One very slow moment of the host has no more effect than a slightly slow one. With fewer than 6
    values the interval is unbounded.
    """
    return quantile_bounds(values, QUANTILES["median"])


def quantile_bounds(values: Sequence[float], quantile: float) -> tuple[float, float]:
    """The 95 % interval of a quantile of values that are not negative.

    Its ends are two of the sorted values, so it assumes no distribution of the values. An end is
    unbounded if there are too few values for it.
    """
    in_order, count = sorted(values), len(values)
    at_most = list(itertools.accumulate(_binomial(count, quantile)))
    at_least = list(itertools.accumulate(_binomial(count, 1 - quantile)))
    # Number of ranks from each end that are beyond the quantile with at most this probability.
    below, above = bisect_right(at_most, _TAIL), bisect_right(at_least, _TAIL)
    return (in_order[below - 1] if below else 0.0, in_order[-above] if above else math.inf)


def _binomial(count: int, probability: float) -> list[float]:
    """The probabilities of 0 to `count` successes."""
    yes, no = math.log(probability), math.log1p(-probability)
    whole = math.lgamma(count + 1)
    return [
        math.exp(
            whole - math.lgamma(k + 1) - math.lgamma(count - k + 1) + k * yes + (count - k) * no
        )
        for k in range(count + 1)
    ]


def _ends(bounds: tuple[float, float]) -> tuple[float | None, float | None]:
    low, high = bounds
    return (low or None, high if math.isfinite(high) else None)
