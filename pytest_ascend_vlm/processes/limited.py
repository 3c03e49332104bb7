"""Asks a child process with a time limit, for questions whose answer may be a crash or a hang.

A process that waits inside a broken driver cannot even be killed. Therefore nothing waits for it
longer than the time limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

_KILL_SECONDS = 5.0


@dataclass(frozen=True)
class Replies:
    """The answers of a child process, and its end.

    Attributes:
        answers: the JSON objects that it wrote.
        code: its exit code, negative for a signal; None if it exceeded its time.
    """

    answers: Sequence[Mapping[str, Any]]
    code: int | None

    @property
    def timed_out(self) -> bool:
        """True if the parent, or the child's own alarm, ended it."""
        return self.code in {None, -signal.SIGALRM}


def ask(command: Sequence[str], env: Mapping[str, str], seconds: float) -> Replies:
    """Runs a command that writes its answers through `answer_channel`.

    Args:
        command: the command.
        env: its whole environment.
        seconds: its time limit.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(process)
        output.seek(0)
        lines = output.read().splitlines()
    # The last line of a process that was killed may be cut off.
    return Replies([json.loads(line) for line in lines if line.endswith("}")], code)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and its children, and waits a moment for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_SECONDS)


@contextlib.contextmanager
def answer_channel() -> Iterator[TextIO]:
    """The child's standard output, for its answers only.

    Libraries print to standard output as well; that goes to standard error.
    """
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        yield channel


def answer(channel: TextIO, content: Mapping[str, Any]) -> None:
    """Writes an answer as one line of JSON."""
    print(json.dumps(content), file=channel, flush=True)


def one_line(error: BaseException) -> str:
    """The type and the message of an exception, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
