"""The run loop of `pytest --vlm-ray`: spreads test classes over the hosts of a cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigurationError, HostError
from ..session.fleet import Host
from . import reasons
from .jobs import Job, in_order, placed
from .ray import Arrival, Cluster, Node
from .replay import Replay
from .work import Message, Work

_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Place:
    """A host of the cluster, and the node that Ray knows it by."""

    host: Host
    node: Node


@dataclass
class _Running:
    """A job that runs on a host, in a process of a name of its own."""

    job: Job
    host: str
    slot: int
    since: float = field(default_factory=time.monotonic)
    last: str = ""

    @property
    def worker(self) -> str:
        """The name of the process: host and number."""
        return f"{self.host}-{self.slot}"


@dataclass(frozen=True)
class Observer:
    """The parts of the run that want to know what happens.

    Attributes:
        event: takes the events of the processes.
        note: takes a line for the closing.
        duration: takes the class and the seconds of a job that has ended.
        must_stop: raises if no further test may run.
    """

    event: Callable[[Mapping[str, Any]], None]
    note: Callable[[str], None]
    duration: Callable[[str, float], None]
    must_stop: Callable[[], None]


class Spread:
    """Runs jobs on the hosts of a cluster until all of their tests were shown."""

    def __init__(
        self, cluster: Cluster, places: Iterable[Place], replay: Replay, observer: Observer
    ) -> None:
        """Starts nothing.

        Args:
            cluster: the cluster.
            places: the hosts.
            replay: shows the tests.
            observer: is told what happens.
        """
        self._cluster = cluster
        self._places = {place.host.name: place for place in places}
        self._replay = replay
        self._observer = observer
        self._waiting: list[Job] = []
        self._running: dict[Any, _Running] = {}

    def run(self, jobs: Sequence[Job], work_of: Callable[[Job, str], Work]) -> None:
        """Runs the jobs.

        Args:
            jobs: the jobs.
            work_of: returns the work of a job for a host.
        """
        self._waiting = in_order(jobs)
        try:
            while self._waiting or self._running:
                self._give_up()
                self._start(work_of)
                if self._running:
                    for arrival in self._cluster.wait(list(self._running), _WAIT_SECONDS):
                        self._take(arrival)
                self._observer.must_stop()
        finally:
            self._cluster.end(list(self._running))

    def _give_up(self) -> None:
        """Shows the jobs that no host can run as errors."""
        hosts = [place.host for place in self._places.values()]
        for job in list(self._waiting):
            reason = reasons.unplaceable(job, hosts)
            if job.may_try_again and reason is None:
                continue
            self._waiting.remove(job)
            if job.died:
                self._replay.fail(job.tests, reasons.died(job), HostError)
            else:
                self._replay.fail(job.tests, str(reason), ConfigurationError)

    def _start(self, work_of: Callable[[Job, str], Work]) -> None:
        taken = Counter[str]()
        for one in self._running.values():
            taken[one.host] += one.job.cards
        free = {name: place.host.cards - taken[name] for name, place in self._places.items()}
        for job, name in placed(self._waiting, free, self._may_run):
            self._waiting.remove(job)
            used = {one.slot for one in self._running.values() if one.host == name}
            running = _Running(job, name, next(n for n in range(len(used) + 1) if n not in used))
            node = self._places[name].node
            task = self._cluster.start(work_of(job, name), node, job.cards)
            self._running[task] = running
            if job.died:
                self._observer.note(reasons.ran_again(job, name))

    def _may_run(self, job: Job, name: str) -> bool:
        return reasons.may_run(job, self._places[name].host)

    def _take(self, arrival: Arrival) -> None:
        running = self._running[arrival.task]
        for message in arrival.messages:
            self._take_message(message, running)
        if arrival.messages:
            return
        del self._running[arrival.task]
        if not running.job.died and not arrival.died:
            self._observer.duration(running.job.name, time.monotonic() - running.since)
        left = running.job.without(self._replay.ended)
        self._replay.forget(left.tests)
        if not left.tests:
            return
        if arrival.died:
            self._waiting = in_order([*self._waiting, left.after_death_of(running.host)])
            self._forget_dead()
            return
        self._replay.fail(left.tests, self._reason(arrival, running), HostError)

    def _take_message(self, message: Message, running: _Running) -> None:
        if "report" in message:
            self._replay.take(message["report"], running.host, running.worker)
        elif "event" in message:
            self._observer.event({**message["event"], "worker": running.worker})
        else:
            running.last = message["ended"]

    def _forget_dead(self) -> None:
        """Removes the hosts that the cluster has lost."""
        living = {node.id for node in self._cluster.nodes()}
        self._places = {
            name: place for name, place in self._places.items() if place.node.id in living
        }

    @staticmethod
    def _reason(arrival: Arrival, running: _Running) -> str:
        return arrival.error or running.last or f"{running.host} sent nothing"
