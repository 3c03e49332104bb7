"""Times of equal requests that are sent at one moment, by their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Burst:
    """A number of requests that were sent at one moment.

    Attributes:
        seconds: time from sending them to the end of the last answer.
        ttft_seconds: TTFT of each request.
    """

    seconds: float
    ttft_seconds: tuple[float, ...]

    @property
    def seconds_per_request(self) -> float:
        """The time of the burst divided by the number of its requests."""
        return self.seconds / len(self.ttft_seconds)


@dataclass(frozen=True)
class GridRow:
    """One image size at several numbers of requests.

    Attributes:
        width: width of the image in pixels.
        height: height of the image in pixels.
        rounds: number of requests -> its burst, for each round. All rounds have the same numbers,
            in ascending order.
    """

    width: int
    height: int
    rounds: tuple[Mapping[int, Burst], ...]

    @property
    def levels(self) -> tuple[int, ...]:
        """The numbers of requests, ascending."""
        return tuple(self.rounds[0])

    def at(self, level: int) -> tuple[Burst, ...]:
        """The bursts of a number of requests, one a round."""
        return tuple(one[level] for one in self.rounds)
