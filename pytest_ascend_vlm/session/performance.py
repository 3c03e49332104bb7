"""Measures how fast one served model is: each thing when it is first asked for, and once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..criteria import performance as rules
from ..criteria.criterion import Cases
from ..criteria.performance import LoadExpectations, Metric, Prefill, TimeRatio
from ..errors import PreconditionError, ServerError
from ..golden import performance_runs
from ..golden.performance_runs import StoredRuns
from ..load.uncached import UncachedRequests
from ..observation.load import Load, Timing
from ..processes.cpu_usage import CpuUsage
from ..spec.case import Capability, Case
from .device_slot import DeviceSlot
from .goldens import Goldens
from .load_test import LEAST_SERVICE_LEVEL_MS, LoadTest
from .memo import Memo
from .request_timing import RequestTimer
from .stored_runs import stored_runs

if TYPE_CHECKING:
    from ..engines.client import Client

_IDLE_SECONDS = 4.0


class PerformanceSession:
    """Measures one model, whatever tests ran before.

    Whoever asks is not judged by the answers: `rules.judge_load` and `rules.require_answers` look
    at them.
    """

    def __init__(self, slot: DeviceSlot, client: Client, goldens: Goldens, directory: Path) -> None:
        """Prepares to measure.

        Args:
            slot: where the model is served.
            client: the served model.
            goldens: its references.
            directory: where changed images may be put.
        """
        uncached = UncachedRequests(directory)
        self._slot = slot
        self._goldens = goldens
        self._timer = RequestTimer(client, uncached)
        self._load_test = LoadTest(slot, client.endpoint, uncached)
        self._loads: dict[str, Memo[Load]] = {}
        self._prefill = Memo(lambda: self._timer.prefill(self.cases("image")))
        self._cpu = Memo(self._measure_cpu)

    def cases(self, kind: str) -> tuple[Case, ...]:
        """The requests of a kind, "text" or "image".

        Raises:
            PreconditionError: there are none.
        """
        cases = self._slot.session.cases(Cases(kind))
        if not cases:
            raise PreconditionError(f"there is no {kind} case that this checkpoint can be asked")
        return cases

    def load(self, name: str) -> Load:
        """How requests were answered.

        Args:
            name: "text" or "image" for one streamed request after another, "load.c1" and so on for
                as many at a time, "load.ramp" for ever more a second, up to what the highest level
                was answered at.
        """
        if name not in self._loads:
            self._loads[name] = Memo(partial(self._measure_load, name))
        return self._loads[name]()

    def prefill(self) -> Prefill:
        """TTFT with the largest image against that of a text of as many tokens, in turns."""
        return self._prefill()

    def cpu(self) -> tuple[list[float], list[float]]:
        """CPU usage of the server's processes while it is idle, and while it is busy, in percent.

        Raises:
            PreconditionError: they cannot be seen from here, or its answers are degenerate.
            ServerError: the server is not running.
        """
        return self._cpu()

    def metrics(self, names: Iterable[str]) -> dict[str, Metric]:
        """Every metric, by name, of the measurements that some metrics come from.

        Raises:
            PreconditionError: one of the measurements cannot be made, or its requests were not
                answered.
        """
        return self._metrics(dict.fromkeys(map(rules.measurement_of, names)))

    def all_metrics(self) -> dict[str, Metric]:
        """Every metric that this model has here, by name.

        Raises:
            PreconditionError: as `metrics` does.
        """
        return self._metrics(self._measurements)

    def expectations(self, kind: str) -> LoadExpectations:
        """What is known beforehand about the requests of a kind."""
        cases, text_of = self.cases(kind), self._goldens.text_of
        return LoadExpectations(
            {case.id: case.max_tokens for case in cases},
            {case.id: self._timer.image_tokens(case) for case in cases if case.images},
            {case.id: text for case in cases if (text := text_of(case)) is not None},
        )

    def against(self, other: Client, kind: str) -> dict[str, TimeRatio]:
        """TTFT and latency here over those of another endpoint, asked the same in turns."""
        return self._timer.against(other, self.cases(kind))

    @property
    def sees_processes(self) -> bool:
        """Whether the server was started by the suite."""
        return self._slot.starts_engines

    def client_of(self, url: str) -> Client:
        """A client of another endpoint that serves the model under its own name."""
        from ..engines.client import Client
        from ..engines.endpoint import Endpoint, RunningServer

        session = self._slot.session
        server = RunningServer(Endpoint(url, session.model.model_id, session.run.options.bearer))
        return Client(server.endpoint, server.explain_loss)

    def save(self, stored: StoredRuns) -> Path:
        """Stores the metrics that runs are compared by, always the same ones; returns the file."""
        typical = {one.name: one.value for one in self.all_metrics().values() if one.is_typical}
        return performance_runs.append(stored, typical)

    def stored_runs(self) -> StoredRuns:
        """The runs that were stored under this run's key."""
        how = [_IDLE_SECONDS, LEAST_SERVICE_LEVEL_MS]
        return stored_runs(self._slot, self._measurements, how)

    @property
    def _measurements(self) -> tuple[str, ...]:
        """What can be measured of this model here, by what it supports and where it is served."""
        of_images = Capability.IMAGE in self._slot.session.model.supports
        return tuple(
            name
            for name in rules.MEASUREMENTS
            if (of_images or name == "text") and (self.sees_processes or name != "cpu")
        )

    def _metrics(self, measurements: Iterable[str]) -> dict[str, Metric]:
        found = itertools.chain.from_iterable(map(self._metrics_of, measurements))
        return {metric.name: metric for metric in found}

    def _metrics_of(self, measurement: str) -> Sequence[Metric]:
        if measurement == "cpu":
            return rules.cpu_metrics(self.cpu()[1])
        if measurement == "image.prefill":
            return (self.prefill().added,)
        load = self.load(measurement)
        expectations = self.expectations(rules.kind_of(measurement))
        rules.require_answers(measurement, load, expectations)
        return rules.metrics(measurement, load)

    def _measure_load(self, name: str) -> Load:
        cases = self.cases(rules.kind_of(name))
        if name in rules.KINDS:
            return self._timer.one_at_a_time(cases)
        level = name.removeprefix("load.")
        if level == "ramp":
            alone, highest = (self.load(f"load.c{one}") for one in (1, max(rules.LEVELS)))
            with self._timer.warm(cases):
                return self._load_test.ramp(cases, alone, highest)
        with self._timer.warm(cases):
            return self._load_test.at(int(level.removeprefix("c")), cases)

    def _measure_cpu(self) -> tuple[list[float], list[float]]:
        if not self.sees_processes:
            raise PreconditionError(
                "the CPU usage of a server that someone else runs cannot be measured. Declare no "
                "limit of cpu.mean and cpu.peak for it, or let the suite start the server."
            )
        # The warm-up also starts a server again that was stopped in the meantime.
        with self._timer.warm(self.cases("image")) as client:
            server = self._slot.server
            if server is None or not server.processes():
                raise ServerError("the server is not running, so its CPU usage cannot be measured")
            with CpuUsage(server.processes) as idle:
                time.sleep(_IDLE_SECONDS)
            with CpuUsage(server.processes) as busy:
                answers = self._keep_busy(client)
        load = Load("one request at a time", 1, _IDLE_SECONDS, answers)
        rules.require_answers("cpu", load, self.expectations("image"))
        return idle.samples, busy.samples

    def _keep_busy(self, client: Client) -> tuple[Timing, ...]:
        answers = []
        deadline = time.monotonic() + _IDLE_SECONDS
        for case in itertools.cycle(self.cases("image")):
            answers.append(self._timer.time(client, self._timer.uncached.case(case)))
            if time.monotonic() > deadline:
                break
        return tuple(answers)
