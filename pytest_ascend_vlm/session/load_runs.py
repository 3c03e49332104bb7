"""Puts a served model under load."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..engines.endpoint import Endpoint
from ..engines.vllm import metrics
from ..errors import PreconditionError
from ..load import generator
from ..load.generator import Traffic
from ..load.uncached import UncachedRequests
from ..observation.load import Load
from ..spec.case import Case
from ..spec.thresholds import SERVICE_LEVEL
from ..spec.workload import Workload
from .device_slot import DeviceSlot

MINIMUM_SERVICE_LEVEL_MS = 1.0


class LoadRuns:
    """Sends loads to a served model with an external load generator."""

    def __init__(self, slot: DeviceSlot, endpoint: Endpoint, uncached: UncachedRequests) -> None:
        self._slot = slot
        self._endpoint = endpoint
        self._uncached = uncached

    def at(self, concurrency: int, cases: Sequence[Case]) -> Load:
        """Sends the cases at a fixed concurrency; returns their timings."""
        return self._generate(f"c{concurrency}", self._traffic(cases, concurrency))

    def workload(self, workload: Workload, requests: Sequence[Case]) -> Load:
        """Sends the requests of a workload; returns their timings."""
        traffic = Traffic(
            requests,
            workload.concurrency or len(requests),
            rate=workload.request_rate,
            exact=True,
            goodput=workload.goodput,
        )
        return self._generate(workload.log_name, traffic)

    def ramp(self, cases: Sequence[Case], single: Load, highest: Load) -> Load:
        """Sends the cases at an increasing request rate; returns their timings.

        The rate grows from a quarter of the throughput of `highest` to that throughput.

        Args:
            cases: the cases.
            single: the load at concurrency 1; the service levels are multiples of its medians.
            highest: the load at the highest concurrency.

        Raises:
            PreconditionError: one of these loads has no answered request.
        """
        if not single.timings or not highest.timings:
            raise PreconditionError(
                "no request was answered at concurrency 1 or at the highest concurrency, so the "
                "ramp has no service level or no rate"
            )
        typical = {
            "ttft": statistics.median(timing.ttft_seconds for timing in single.timings),
            "tpot": statistics.median(timing.tpot_seconds or 0.0 for timing in single.timings),
        }
        levels = {
            name: max(1000 * SERVICE_LEVEL * seconds, MINIMUM_SERVICE_LEVEL_MS)
            for name, seconds in typical.items()
        }
        rates = (highest.request_throughput / 4, highest.request_throughput)
        concurrency = 4 * highest.concurrency
        traffic = self._traffic(cases, concurrency, ramp=rates, goodput=levels)
        return self._generate("ramp", traffic)

    def _traffic(self, cases: Sequence[Case], concurrency: int, **more: Any) -> Traffic:
        count = self._slot.session.run.options.requests
        repeated = itertools.islice(itertools.cycle(cases), count)
        return Traffic(tuple(map(self._uncached.case, repeated)), concurrency, **more)

    def _generate(self, name: str, traffic: Traffic) -> Load:
        session = self._slot.session
        directory = session.run.logs.directory / f"{self._slot.label}-load" / name
        on_progress = session.run.progress(f"load {name}")
        found, counted = metrics.measure(
            self._endpoint,
            lambda: generator.generate(traffic, self._endpoint, directory, on_progress),
        )
        return replace(found, server_seconds=counted.seconds, server_requests=counted.requests)
