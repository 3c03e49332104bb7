"""Runs a command that cannot outlive this process, and polls it until it ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import supervisor
from .post_mortem import post_mortem

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class SupervisedProcess:
    """A command to run under the supervisor.

    Attributes:
        command: the command.
        log_path: file for the command's output, in an existing directory.
        env: variables added to the current environment.
        cwd: the command's working directory; None for the current one.
        scratch: a directory of this process's that goes with the command if this process is killed.
    """

    command: Sequence[str]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    scratch: Path | None = None

    @property
    def log(self) -> str:
        """The command's output so far."""
        return self.log_path.read_text("utf-8", errors="replace")

    def start(self, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Starts the command under the supervisor, which stops it when its own input is closed.

        Args:
            stdout: destination of the supervisor's own output.

        Returns:
            The supervisor's process, whose exit code is the command's.
        """
        arguments = [str(self.log_path), str(self.scratch or ""), *self.command]
        return subprocess.Popen(
            [sys.executable, "-m", supervisor.__name__, *arguments],
            stdin=subprocess.PIPE,
            stdout=stdout,
            env={**os.environ, **self.env, "PYTHONUNBUFFERED": "1"},
            cwd=self.cwd,
        )

    def run(self, on_poll: Callable[[float], None]) -> int:
        """Runs the command under the supervisor and returns its exit code.

        Args:
            on_poll: called twice a second with the elapsed seconds. An exception that it raises
                stops the command and is passed on.
        """
        with contextlib.closing(self.polled()) as polled:
            while True:
                try:
                    seconds = next(polled)
                except StopIteration as ended:
                    return int(ended.value)
                on_poll(seconds)

    def polled(self) -> Generator[float, None, int]:
        """Runs the command; yields the elapsed seconds twice a second, returns the exit code.

        To close the generator stops the command.
        """
        process = self.start()
        since = time.monotonic()
        try:
            while process.poll() is None:
                yield time.monotonic() - since
                time.sleep(_POLL_SECONDS)
        finally:
            with contextlib.suppress(BrokenPipeError):
                # Closing the pipe makes the supervisor stop the command.
                process.stdin.close()  # type: ignore[union-attr]
            process.wait()
        return process.returncode

    def with_tail(self, problem: str) -> str:
        """Appends the root cause, if the output contains one, and the end of the output."""
        return post_mortem(problem, self.log, self.log_path)
