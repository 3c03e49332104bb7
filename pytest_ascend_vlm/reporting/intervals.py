"""The intervals that the evidence of a row has, to compare the numbers of two reports."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..criteria.distribution import median_bounds
from ..rounding import rounded
from ..spec.thresholds import Thresholds

_TIMES = ("latency", "ttft", "tpot")


@dataclass(frozen=True)
class Interval:
    """A measured number with its interval.

    Attributes:
        name: the name of the number: "R", "median ttft".
        value: the number.
        low: lower end of the interval.
        high: upper end of the interval.
        unit: the unit of all three; empty for a ratio.
        basis: what it was measured on. Numbers on another basis do not compare.
        more_is_better: True for a score.
        room: factor that a number may grow by beyond the interval. The interval of a time does not
            contain how busy the host was in that run.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str = ""
    basis: str = ""
    more_is_better: bool = False
    room: float = 1.0

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        value, low, high = (rounded(one, 3) for one in (self.value, self.low, self.high))
        return f"{value}{unit} ({low} to {high})"

    def is_above(self, other: Interval) -> bool:
        """True if this whole interval is above the other one."""
        return self.low > other.high * self.room


def intervals(row: Mapping[str, Any], device: str) -> list[Interval]:
    """The numbers of a row that have an interval.

    Args:
        row: a row of report.json.
        device: the device that it was measured on, because times of two devices do not compare.
    """
    evidence = row.get("evidence") or {}
    return [*_ratios(row, evidence), *_scores(evidence), *_times(evidence, device)]


def _ratios(row: Mapping[str, Any], evidence: Mapping[str, Any]) -> Iterator[Interval]:
    basis = _basis(evidence, "numbers", "cases")
    for name in ("R", "K"):
        # Each row of a group has both in its evidence; one row judges it.
        if f"{name}_low" in evidence and row["measured"] == evidence[name]:
            ends = (float(evidence[f"{name}_low"]), float(evidence[f"{name}_high"]))
            yield Interval(name, float(evidence[name]), *ends, basis=basis)
    if isinstance(ratio := evidence.get("ratio"), Mapping) and "low" in ratio:
        value, low, high = (float(ratio[end]) for end in ("median", "low", "high"))
        yield Interval("ratio of times", value, low, high)


def _scores(evidence: Mapping[str, Any]) -> Iterator[Interval]:
    if "bounds_95" in evidence:
        low, high = evidence["bounds_95"]
    elif "blind_spot" in evidence:
        difference, blind = evidence["difference"], evidence["blind_spot"]
        low, high = difference - blind, difference + blind
    else:
        return
    yield Interval(
        "score minus the reference's",
        evidence["difference"],
        low,
        high,
        basis=_basis(evidence, "protocol", "reference", "samples"),
        more_is_better=True,
    )


def _times(evidence: Mapping[str, Any], device: str) -> Iterator[Interval]:
    basis = f"{device} {evidence.get('generator')}"
    for series in evidence.get("series") or ():
        if series["name"] in _TIMES and series["values"]:
            values = [float(value) for value in series["values"]]
            ends, median = median_bounds(values), statistics.median(values)
            name, room = f"median {series['name']}", Thresholds().slowdown
            yield Interval(name, median, *ends, unit=series["unit"], basis=basis, room=room)


def _basis(evidence: Mapping[str, Any], *names: str) -> str:
    return json.dumps([evidence.get(name) for name in names], sort_keys=True)
