"""Costs of actions that run alternately, and intervals of their medians."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLOCKS = ("wall", "processor")
LEAST_ROUNDS = 6
"""The range of six rounds contains the true median with more than 95 % probability."""


@dataclass(frozen=True)
class Cost:
    """The cost of an action: wall seconds, and CPU seconds of all threads of this process."""

    wall: float
    processor: float

    @classmethod
    def of(cls, action: Callable[[], object]) -> Cost:
        """Runs an action and measures its cost."""
        since, used = time.perf_counter(), time.process_time()
        action()
        return cls(time.perf_counter() - since, time.process_time() - used)

    def plus(self, times: float, other: Cost) -> Cost:
        """The cost plus N times another cost."""
        return Cost(self.wall + times * other.wall, self.processor + times * other.processor)


class Rounds:
    """The costs of several variants, measured alternately.

    Attributes:
        costs: variant -> one cost per round.
    """

    def __init__(self, ways: Mapping[str, Callable[[], Cost]], rounds: int) -> None:
        """Runs all variants in each round, in alternating order."""
        self.costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for round_ in range(rounds):
            for name in list(ways)[:: 1 if round_ % 2 else -1]:
                self.costs[name].append(ways[name]())
                say(f"round {round_ + 1} of {rounds}: {name} {self.costs[name][-1]}")

    def median(self, name: str) -> float:
        """Median wall seconds of one variant."""
        return statistics.median(cost.wall for cost in self.costs[name])

    def ratios(self, above: str, below: str, clock: str = "wall") -> list[float]:
        """The ratio of two variants in each round."""
        pairs = zip(self.costs[above], self.costs[below], strict=True)
        return [getattr(one, clock) / getattr(other, clock) for one, other in pairs]

    def to_json(self) -> dict[str, Any]:
        """All costs, by variant."""
        return {name: [vars(cost) for cost in costs] for name, costs in self.costs.items()}


def with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the closest order statistics around it with at least 95 % confidence."""
    ordered, n = sorted(values), len(values)
    outside, cut = 2 / 2**n, 0
    while outside + 2 * math.comb(n, cut + 1) / 2**n <= 0.05:
        cut += 1
        outside += 2 * math.comb(n, cut) / 2**n
    return statistics.median(ordered), ordered[cut], ordered[-1 - cut]


def say(line: str) -> None:
    """Prints progress to standard error."""
    print(f"  {line}", file=sys.stderr, flush=True)
