"""Runs a command that cannot outlive us, and watches it until it ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import supervisor
from .post_mortem import post_mortem

_POLL_SECONDS = 0.5


def spawn(
    command: Sequence[str],
    log_path: Path,
    env: Mapping[str, str],
    *,
    cwd: Path | None = None,
    stdout: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Starts a command under the supervisor, which ends it with the end of its standard input.

    Args:
        command: the command.
        log_path: file that its output is appended to.
        env: its environment.
        cwd: its working directory; None for ours.
        stdout: where the supervisor's own output goes.
    """
    return subprocess.Popen(
        [sys.executable, "-m", supervisor.__name__, str(log_path), *command],
        stdin=subprocess.PIPE,
        stdout=stdout,
        env={**env, "PYTHONUNBUFFERED": "1"},
        cwd=cwd,
    )


@dataclass(frozen=True)
class SupervisedProcess:
    """A command to run.

    Attributes:
        command: the command.
        log_path: file that gets its output, in a directory that exists.
        env: environment on top of ours.
        cwd: its working directory; None for ours.
    """

    command: Sequence[str]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    @property
    def log(self) -> str:
        """Its output so far."""
        return self.log_path.read_text("utf-8", errors="replace")

    def run(self, watch: Callable[[float], None]) -> int:
        """Runs it under the supervisor; returns its exit code.

        Args:
            watch: called twice a second with the seconds so far; what it raises ends the command.
        """
        process = spawn(self.command, self.log_path, {**os.environ, **self.env}, cwd=self.cwd)
        since = time.monotonic()
        try:
            while process.poll() is None:
                watch(time.monotonic() - since)
                time.sleep(_POLL_SECONDS)
        finally:
            with contextlib.suppress(BrokenPipeError):
                # The end of the pipe ends whatever still runs.
                process.stdin.close()  # type: ignore[union-attr]
            process.wait()
        return process.returncode

    def with_tail(self, problem: str) -> str:
        """A problem with its root cause, where the output has one, and the end of the output."""
        return post_mortem(problem, self.log, self.log_path)
