"""How much of this host's processor a server uses, all of its processes together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil

_SAMPLE_SECONDS = 0.25


class CpuUsage:
    """Samples a process tree while a `with` block runs.

    Attributes:
        samples: CPU use in percent of the cores that this process may use, one for each quarter of
            a second; 100 is all of them.
    """

    def __init__(self, processes: Callable[[], list[psutil.Process]]) -> None:
        """Args: processes: those to count, asked for at every sample."""
        self.samples: list[float] = []
        self._processes = processes
        self._over = threading.Event()
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
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        cores = len(os.sched_getaffinity(0))
        seconds, since = self._used(), time.monotonic()
        while not self._over.wait(_SAMPLE_SECONDS):
            used, now = self._used(), time.monotonic()
            # A process that ended takes its seconds with it; that is no negative use.
            self.samples.append(max(0.0, 100 * (used - seconds) / (now - since) / cores))
            seconds, since = used, now

    def _used(self) -> float:
        """Processor seconds of all processes so far."""
        total = 0.0
        for process in self._processes():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total
