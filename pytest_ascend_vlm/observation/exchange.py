"""Observations of how a server treats requests of all kinds."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec.step import Step
from .answers import Completion, Refusal


@dataclass(frozen=True)
class Exchange:
    """One request, and the reply as it came.

    Attributes:
        step: the request.
        status: the HTTP status; 0 if the reply did not come, or not to its end; None if the client
            left before the reply began.
        text: the body, as far as it was read; the reason if the status is 0.
    """

    step: Step
    status: int | None
    text: str = ""

    @property
    def refusal(self) -> Refusal:
        """The reply in the form of a refusal, whatever its status is."""
        return Refusal.of(self.status or 0, self.text)


@dataclass(frozen=True, eq=False)
class SequenceRun:
    """A sequence of requests, and the state of the server after it.

    Attributes:
        exchanges: the requests that were sent; a wrong reply ends the sequence.
        canary: the reply to the canary, a good request that is cold.
        health: the HTTP status of `/health`; 0 if it got no reply.
    """

    exchanges: tuple[Exchange, ...]
    canary: Completion | Refusal
    health: int

    @property
    def steps(self) -> tuple[Step, ...]:
        """The requests that were sent."""
        return tuple(exchange.step for exchange in self.exchanges)


@dataclass(frozen=True, eq=False)
class SequenceSearch:
    """The search for a sequence that a server does not survive unharmed.

    Attributes:
        runs: the generated sequences, in order; the search ends at a wrong one.
        shortest: the run of the shortest wrong sequence that was found; None if all are right.
        shortening: number of sequences that were sent to find a shorter one.
        needs_restart: True if the search ended because the server has to be restarted (again).
    """

    runs: tuple[SequenceRun, ...]
    shortest: SequenceRun | None = None
    shortening: int = 0
    needs_restart: bool = False
