"""Jobs of a cluster: their order, their places, and the end of a job whose host died; pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

_ATTEMPTS = 2


@dataclass(frozen=True)
class Job:
    """The tests of one class, which run in one process on one host.

    Attributes:
        name: the node id of the class: "conformance/test_glm_ocr.py::TestGlmOcr".
        cards: number of cards; 0 if its tests start no server.
        tests: the node ids of its tests.
        model_id: the id of its model; empty for tests without a model.
        seconds: duration in an earlier run; None if it is unknown.
        died: names of the hosts that died while they ran the job.
    """

    name: str
    cards: int
    tests: tuple[str, ...] = ()
    model_id: str = ""
    seconds: float | None = None
    died: tuple[str, ...] = ()

    @property
    def short_name(self) -> str:
        """The name of the class."""
        return self.name.rpartition("::")[2]

    def without(self, ended: Collection[str]) -> Job:
        """The job with the tests that have not ended yet."""
        return dataclasses.replace(self, tests=tuple(t for t in self.tests if t not in ended))

    def after_death_of(self, host: str) -> Job:
        """The job, once a host died that ran it."""
        return dataclasses.replace(self, died=(*self.died, host))

    @property
    def may_try_again(self) -> bool:
        """False once two hosts died with the job: it may be the reason of their end."""
        return len(self.died) < _ATTEMPTS


def in_order(jobs: Collection[Job]) -> list[Job]:
    """The jobs in the order in which they get cards: most card-seconds first.

    So without durations the jobs with most cards are first, and of those the longest. A job of
    unknown duration may be the longest, so it counts as that.
    """
    known = [job.seconds for job in jobs if job.seconds is not None]
    longest = max(known, default=1.0)

    def card_seconds(job: Job) -> float:
        return job.cards * (longest if job.seconds is None else job.seconds)

    return sorted(jobs, key=lambda job: (-card_seconds(job), -job.cards))


def placed(
    waiting: Iterable[Job], free: Mapping[str, int], may_run: Callable[[Job, str], bool]
) -> list[tuple[Job, str]]:
    """The jobs that start now, each with its host.

    A job takes the host with the fewest free cards that suffice, so that large gaps stay for large
    jobs. If nothing that waits needs more cards than it, the job takes the emptiest host instead.

    Args:
        waiting: the jobs in the order of `in_order`.
        free: host -> number of free cards.
        may_run: True if a host can run a job, once enough of its cards are free.
    """
    left, starting = dict(free), []
    largest_kept_waiting = 0
    for job in waiting:
        fitting = [host for host, cards in left.items() if cards >= job.cards]
        able = [host for host in fitting if may_run(job, host)]
        if not able:
            largest_kept_waiting = max(largest_kept_waiting, job.cards)
            continue
        choose = min if largest_kept_waiting > job.cards else max
        host = choose(able, key=lambda one: left[one])
        left[host] -= job.cards
        starting.append((job, host))
    return starting
