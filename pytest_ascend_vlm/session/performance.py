"""Performance measurements of one served model, each made once, when first requested."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..criteria import offline_load as offline_rules
from ..criteria import performance as rules
from ..criteria.agreement import compared
from ..criteria.distribution import Metric
from ..criteria.performance import WORKLOAD, LoadExpectations, Prefill, TimeRatio
from ..errors import PreconditionError, ServerError
from ..golden import performance_runs
from ..golden.performance_runs import StoredRuns
from ..load.uncached import UncachedRequests
from ..observation.load import Load, Timing
from ..observation.offline_load import OfflineLoad
from ..processes.cpu_usage import CpuUsage
from ..spec.case import Capability, Case
from ..spec.workload import Workload
from .device_slot import DeviceSlot
from .endpoints import compared_server
from .goldens import Goldens
from .load_runs import MINIMUM_SERVICE_LEVEL_MS, LoadRuns
from .memo import Memo
from .offline_loads import offline_load
from .request_timing import RequestTimer, timed_cases
from .stored_runs import stored_runs
from .workload_requests import WorkloadRequests

if TYPE_CHECKING:
    from ..engines.client import Client

_IDLE_SECONDS = 4.0


class PerformanceSession:
    """Performance measurements of one model, independent of the tests that ran before.

    The judge does not check the answers to these requests for degenerate text;
    `rules.judge_load` and `rules.require_answers` do.
    """

    def __init__(self, slot: DeviceSlot, client: Client, goldens: Goldens, directory: Path) -> None:
        """Sets up; measures nothing yet.

        Args:
            slot: the model's server and devices.
            client: the client of the served model.
            goldens: the reference answers.
            directory: directory for modified images.
        """
        uncached = UncachedRequests(directory)
        self._slot = slot
        self._goldens = goldens
        self._timer = RequestTimer(client, uncached)
        self._load_runs = LoadRuns(slot, client.endpoint, uncached)
        is_tiny = slot.session.run.options.checkpoint == "tiny"
        self._requests = WorkloadRequests(self._timer, lambda: self.cases("image"), is_tiny=is_tiny)
        self._loads: dict[str, Memo[Load]] = {}
        self._offline = {
            one.name: Memo(partial(offline_load, slot, one))
            for one in slot.session.model.workloads
            if one.is_offline
        }
        self._prefill = Memo(lambda: self._timer.prefill(self.cases("image")))
        self._cpu = Memo(self._measure_cpu)

    def cases(self, kind: str) -> tuple[Case, ...]:
        """The cases of a kind, "text" or "image", whose requests are timed.

        Raises:
            PreconditionError: this checkpoint has none.
        """
        cases = timed_cases(self._slot.session, kind)
        if not cases:
            raise PreconditionError(f"this checkpoint has no {kind} case of one message")
        return cases

    def load(self, name: str) -> Load:
        """The timings of a load.

        Args:
            name: "text" or "image": one streamed request at a time. "load.c1", "load.c8", ...:
                that number of concurrent requests. "load.ramp": an increasing request rate, up to
                the throughput at the highest concurrency. "workload.NAME": a workload that the
                model file declares.
        """
        if name not in self._loads:
            self._loads[name] = Memo(partial(self._measure_load, name))
        return self._loads[name]()

    def answered_load(self, name: str) -> Load:
        """The timings of a load whose requests all got a valid answer.

        Raises:
            PreconditionError: some did not, so their speed means nothing.
        """
        load = self.load(name)
        rules.require_answers(name, load, self.expectations(name))
        return load

    def offline(self, workload: Workload) -> OfflineLoad:
        """The batches of a workload of an offline engine; the model's own server is stopped.

        Raises:
            PreconditionError: the installed vLLM does not have the tool.
            ServerError: the tool fails or exceeds its time.
        """
        return self._offline[workload.name]()

    def prefill(self) -> Prefill:
        """TTFT with the largest image and with a text of equally many tokens, measured in turns."""
        return self._prefill()

    def cpu(self) -> tuple[list[float], list[float]]:
        """Samples of the CPU usage of the server's processes in percent: (idle, busy).

        Raises:
            PreconditionError: the suite did not start the server, so it cannot see the processes;
                or the answers are degenerate.
            ServerError: the server is not running.
        """
        return self._cpu()

    def metrics(self, names: Iterable[str]) -> dict[str, Metric]:
        """All metrics, by name, of the measurements that the given metrics come from.

        Raises:
            PreconditionError: a measurement cannot be made, or its requests were not answered.
        """
        return self._metrics(dict.fromkeys(map(rules.measurement_of, names)))

    def all_metrics(self) -> dict[str, Metric]:
        """All metrics of this model, by name.

        Raises:
            PreconditionError: as for `metrics`.
        """
        return self._metrics(self._measurements)

    @property
    def dtype(self) -> str | None:
        """The dtype that the server was started with; None if the suite did not start it."""
        declared = self._slot.session.arguments.deployment.get("dtype", "auto")
        return str(declared) if self.sees_processes else None

    def expectations(self, measurement: str) -> LoadExpectations:
        """The expected answers and token counts of the requests of a measurement."""
        if measurement.startswith(WORKLOAD):
            return self._requests.of(self._workload(measurement))[1]
        cases, text_of = self.cases(rules.kind_of(measurement)), self._goldens.text_of
        return LoadExpectations(
            {case.id: case.max_tokens for case in cases},
            {case.id: self._timer.image_tokens(case) for case in cases if case.images},
            {case.id: text for case in cases if (text := text_of(case)) is not None},
            self._slot.session.model.thresholds.similarity_after_tie,
        )

    def against(self, other: Client, kind: str) -> dict[str, TimeRatio]:
        """TTFT and latency divided by those of another endpoint, measured in turns.

        Raises:
            PreconditionError: one of them gave an answer that is none.
        """
        pairs = self._timer.in_turns_with(other, self.cases(kind))
        sides = ("the judged server", "the compared endpoint")
        for side, answers in zip(sides, zip(*pairs, strict=True), strict=True):
            load = Load("one request at a time", 1, sum(one.seconds for one in answers), answers)
            rules.require_answers(f"{kind}, {side}", load, self.expectations(kind))
        return {
            "TTFT": rules.median_ratio([(a.ttft_seconds, b.ttft_seconds) for a, b in pairs]),
            "latency": rules.median_ratio([(a.seconds, b.seconds) for a, b in pairs]),
        }

    @property
    def sees_processes(self) -> bool:
        """True if the suite started the server, so that its processes are visible."""
        return self._slot.starts_engines

    def client_of(self, url: str) -> Client:
        """A client of another endpoint that serves the model.

        Raises:
            ConfigurationError: nothing shows which of its models is meant.
        """
        from ..engines.client import Client

        session, name = self._slot.session, self._slot.own_server().endpoint.served_name
        server = compared_server(session.run, url, session.model.model_id, name)
        return Client(server.endpoint, server.explain_loss)

    def save(self, stored: StoredRuns) -> Path:
        """Stores the metrics that later runs are compared with; returns the file's path."""
        typical = {one.name: one.value for one in self.all_metrics().values() if one.is_typical}
        return performance_runs.append(stored, typical)

    def stored_runs(self) -> StoredRuns:
        """The runs that were stored under this run's key."""
        how = [_IDLE_SECONDS, MINIMUM_SERVICE_LEVEL_MS]
        return stored_runs(self._slot, self._measurements, how)

    @property
    def _measurements(self) -> tuple[str, ...]:
        """The names of the measurements that this model and its server allow."""
        of_images = Capability.IMAGE in self._slot.session.model.supports
        common = tuple(
            name
            for name in rules.MEASUREMENTS
            if (of_images or name == "text") and (self.sees_processes or name != "cpu")
        )
        workloads = (
            f"{WORKLOAD}{one.name}"
            for one in self._slot.session.model.workloads
            if self.sees_processes or not one.is_offline
        )
        return (*common, *workloads)

    def _workload(self, measurement: str) -> Workload:
        name = measurement.removeprefix(WORKLOAD)
        return next(one for one in self._slot.session.model.workloads if one.name == name)

    def _metrics(self, measurements: Iterable[str]) -> dict[str, Metric]:
        found = itertools.chain.from_iterable(map(self._metrics_of, measurements))
        return {metric.name: metric for metric in found}

    def _metrics_of(self, measurement: str) -> Sequence[Metric]:
        if measurement == "cpu":
            return rules.cpu_metrics(self.cpu()[1])
        if measurement == "image.prefill":
            prefill = self.prefill()
            compared(measurement, prefill.requests)
            return (prefill.added,)
        if measurement.startswith(WORKLOAD) and self._workload(measurement).is_offline:
            return self._offline_metrics(self._workload(measurement))
        load = self.answered_load(measurement)
        compared(measurement, load)
        return rules.metrics(measurement, load)

    def _offline_metrics(self, workload: Workload) -> Sequence[Metric]:
        load = self.offline(workload)
        offline_rules.require_answers(workload, load)
        return offline_rules.metrics(workload, load)

    def _measure_load(self, name: str) -> Load:
        if name.startswith(WORKLOAD):
            requests, _ = self._requests.of(self._workload(name))
            with self._timer.warm(requests):
                load = self._load_runs.workload(self._workload(name), requests)
            return self._timer.with_wire(load, requests)
        cases = self.cases(rules.kind_of(name))
        return self._timer.with_wire(self._send_load(name, cases), cases)

    def _send_load(self, name: str, cases: Sequence[Case]) -> Load:
        if name in rules.KINDS:
            return self._timer.one_at_a_time(cases)
        level = name.removeprefix("load.")
        if level == "ramp":
            single, highest = self.load("load.c1"), self.load(f"load.c{max(rules.LEVELS)}")
            with self._timer.warm(cases):
                return self._load_runs.ramp(cases, single, highest)
        with self._timer.warm(cases):
            return self._load_runs.at(int(level.removeprefix("c")), cases)

    def _measure_cpu(self) -> tuple[list[float], list[float]]:
        if not self.sees_processes:
            raise PreconditionError(
                "the CPU usage of a server that the suite did not start cannot be measured. Remove "
                "the limits of cpu.mean and cpu.peak, or let the suite start the server."
            )
        # The warm-up also starts the server again if a test has stopped it.
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
