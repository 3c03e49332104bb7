"""Finds the processes that a test started, wherever they went."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GONE_WITHIN_SECONDS = 30.0


@dataclass
class Watch:
    """Finds processes of one test by a variable that only they have in their environment.

    A process that renames itself overwrites the memory its environment is read from, so one that
    writes to a log of the test's own directory counts too.
    """

    directory: Path
    mark: str = field(default_factory=lambda: f"vlm-test-{uuid.uuid4().hex}")

    @property
    def environment(self) -> dict[str, str]:
        return {"VLM_TEST_MARK": self.mark}

    def processes(self) -> list[psutil.Process]:
        return [psutil.Process(pid) for pid in psutil.pids() if self._is_ours(pid)]

    def left_after(self, seconds: float) -> list[str]:
        """What is still running once nothing is, or the time is up."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return list(filter(None, map(_command, left)))

    def end(self) -> None:
        for process in self.processes():
            process.kill()

    def _is_ours(self, pid: int) -> bool:
        # /proc has no process without a leader's file system entry: what vanishes meanwhile is gone
        try:
            entry = Path(f"/proc/{pid}")
            if pid == os.getpid() or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return False
            if self.mark.encode() in (entry / "environ").read_bytes():
                return True
            return (entry / "fd/1").readlink().is_relative_to(self.directory)
        except (OSError, psutil.Error):
            return False


def _command(process: psutil.Process) -> str:
    """The command of a process; empty if it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
