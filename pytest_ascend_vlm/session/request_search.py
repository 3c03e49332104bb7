"""Searches for the shortest sequence of requests that a server does not survive unharmed.

Hypothesis draws the sequences. It does not shorten them: it tries many sequences that fail, and a
server that has failed often has to be restarted, which takes minutes. Here the shortest sequences
come first, so that nearly all that are tried are right, and the first that fails is the shortest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

from ..observation.exchange import SequenceRun, SequenceSearch
from ..spec.step import Step, combined_steps, single_steps
from ..spec.thresholds import SHRINK_REQUESTS, SHRINK_SECONDS
from .drawing import drawn, uniform

if TYPE_CHECKING:
    from .request_runs import RequestRuns

_TOGETHER = 10  # the canary takes longer than most requests
_LONGEST = 6
_PICTURES_A_SEQUENCE = 6  # which take as long
_RESTARTS = 2

Steps = tuple[Step, ...]


def search(runs: RequestRuns, known: Set[str], examples: int) -> SequenceSearch:
    """Sends sequences until one does harm, then looks for the shortest one that does.

    The latter ends after `SHRINK_REQUESTS` requests or `SHRINK_SECONDS` of waiting for replies, at
    the second restart of the server, or if the server cannot be restarted.

    Args:
        runs: sends a sequence.
        known: names of requests that are known to get a wrong reply; they are not sent.
        examples: number of generated pictures of serving.image_sizes.
    """
    sent: list[SequenceRun] = []
    for steps in sequences(known, examples):
        sent.append(runs.run(steps))
        if runs.harm(sent[-1]) is not None:
            shortening = _Shortening(runs, sent[-1])
            shortening.fewer_steps()
            shortening.plainer_steps()
            return SequenceSearch(
                tuple(sent), shortening.shortest, shortening.sent, shortening.needs_restart
            )
    return SequenceSearch(tuple(sent))


def sequences(known: Set[str], examples: int) -> list[Steps]:
    """Every kind of request once, then generated sequences; the same in every run.

    Args:
        known: names of requests that are left out, and with them all combinations.
        examples: number of generated pictures; there is a sequence for every six of them.
    """
    from hypothesis import strategies

    def is_unknown(step: Step) -> bool:
        return known.isdisjoint({step.name, *(one.name for one in step.plainer)})

    singles = list(filter(is_unknown, single_steps()))
    once = [
        tuple(singles[first : first + _TOGETHER]) for first in range(0, len(singles), _TOGETHER)
    ]
    combined = list(filter(is_unknown, combined_steps()))
    some = strategies.lists(uniform(combined), min_size=1, max_size=_LONGEST)
    return [*once, *map(tuple, drawn(some, max(examples // _PICTURES_A_SEQUENCE, 1)))]


class _Shortening:
    """Looks for the shortest sequence that does harm, within some limits.

    Attributes:
        shortest: the run of the shortest sequence so far.
        sent: number of sequences that were sent.
        needs_restart: True if the server has to be restarted before the next sequence.
    """

    def __init__(self, runs: RequestRuns, found: SequenceRun) -> None:
        self.shortest = found
        self.sent = 0
        self._runs = runs
        self._requests = 0
        self._seconds = 0.0
        self._restarts = 0
        self.needs_restart = not self._is_sound_again()

    def fewer_steps(self) -> None:
        """Leaves out steps: first tries each step alone, then each pair, and so on."""
        steps = self.shortest.steps
        for length in range(1, len(steps)):
            if self._first_harmful(itertools.combinations(steps, length)):
                return

    def plainer_steps(self) -> None:
        """Replaces each step by the plainest one that still does harm."""
        for place in range(len(self.shortest.steps)):
            self._first_harmful(_plainer(self.shortest.steps, place))

    def _first_harmful(self, candidates: Iterator[Steps]) -> bool:
        return any(self._does_harm(one) for one in candidates if self._may_send(one))

    def _does_harm(self, steps: Steps) -> bool:
        since = time.monotonic()
        run = self._runs.run(steps)
        self._seconds += time.monotonic() - since
        self._requests += len(steps)
        self.sent += 1
        if self._runs.harm(run) is None:
            return False
        self.shortest = run
        self.needs_restart = not self._is_sound_again()
        return True

    def _may_send(self, steps: Steps) -> bool:
        in_time = self._requests + len(steps) <= SHRINK_REQUESTS and self._seconds < SHRINK_SECONDS
        return in_time and not self.needs_restart

    def _is_sound_again(self) -> bool:
        """True if the server is as before all requests, so that another sequence may be sent.

        A server that dies three times is not started again, and other tests need it. So none is
        restarted a third time, and no sequence is sent after the second restart.
        """
        if self._runs.is_sound():
            return True
        self._restarts += 1
        return self._runs.restart() and self._restarts < _RESTARTS


def _plainer(steps: Steps, place: int) -> Iterator[Steps]:
    for plainer in steps[place].plainer:
        yield (*steps[:place], plainer, *steps[place + 1 :])
