"""CPU usage of a server, summed over all of its processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil

_SAMPLE_SECONDS = 0.25


class CpuUsage:
    """Samples the CPU usage of processes while a `with` block runs.

    Attributes:
        samples: CPU usage every 0.25 s, in percent of all cores that this process may use.
    """

    def __init__(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """Args: processes: returns the processes to count; called at every sample."""
        self.samples: list[float] = []
        self._processes = processes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> CpuUsage:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        cores = len(os.sched_getaffinity(0))
        seconds, since = self._used(), time.monotonic()
        while not self._stopped.wait(_SAMPLE_SECONDS):
            used, now = self._used(), time.monotonic()
            # The CPU seconds of a process that ended disappear from the sum: clamp at zero.
            self.samples.append(max(0.0, 100 * (used - seconds) / (now - since) / cores))
            seconds, since = used, now

    def _used(self) -> float:
        """CPU seconds used by all processes so far."""
        total = 0.0
        for process in self._processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total
