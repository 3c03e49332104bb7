"""Puts the served model of one slot under load."""

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
from ..load.generator import Workload
from ..load.uncached import UncachedRequests
from ..observation.load import Load
from ..spec.case import Case
from ..spec.thresholds import SERVICE_LEVEL
from .device_slot import DeviceSlot

LEAST_SERVICE_LEVEL_MS = 1.0


class LoadTest:
    """Sends workloads with a load generator that others maintain."""

    def __init__(self, slot: DeviceSlot, endpoint: Endpoint, uncached: UncachedRequests) -> None:
        self._slot = slot
        self._endpoint = endpoint
        self._uncached = uncached

    def at(self, concurrency: int, cases: Sequence[Case]) -> Load:
        """How requests were answered with as many on the way at a time."""
        return self._generate(f"c{concurrency}", self._workload(cases, concurrency))

    def ramp(self, cases: Sequence[Case], alone: Load, highest: Load) -> Load:
        """How ever more requests a second were answered, up to what a level was answered at.

        Args:
            cases: what is asked.
            alone: how such requests were answered one at a time; the service levels are in its
                units.
            highest: how they were answered at the highest concurrency.

        Raises:
            PreconditionError: nothing was answered there.
        """
        if not alone.timings or not highest.timings:
            raise PreconditionError(
                "nothing was answered one at a time, so there is no service level"
            )
        typical = {
            "ttft": statistics.median(timing.ttft_seconds for timing in alone.timings),
            "tpot": statistics.median(timing.tpot_seconds or 0.0 for timing in alone.timings),
        }
        levels = {
            name: max(1000 * SERVICE_LEVEL * seconds, LEAST_SERVICE_LEVEL_MS)
            for name, seconds in typical.items()
        }
        rates = (highest.request_throughput / 4, highest.request_throughput)
        concurrency = 4 * highest.concurrency
        workload = self._workload(cases, concurrency, ramp=rates, goodput=levels)
        return self._generate("ramp", workload)

    def _workload(self, cases: Sequence[Case], concurrency: int, **more: Any) -> Workload:
        wanted = self._slot.session.run.options.requests
        chosen = itertools.islice(itertools.cycle(cases), wanted)
        return Workload(tuple(map(self._uncached.case, chosen)), concurrency, **more)

    def _generate(self, name: str, workload: Workload) -> Load:
        session = self._slot.session
        directory = session.run.logs.directory / f"{self._slot.label}-load" / name

        def on_progress(line: str) -> None:
            session.on_progress(f"load {name}: {line}")

        found, server_seconds = metrics.while_doing(
            self._endpoint,
            lambda: generator.generate(workload, self._endpoint, directory, on_progress),
        )
        return replace(found, server_seconds=server_seconds)
