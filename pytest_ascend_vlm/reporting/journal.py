"""The journal of a run: `events.jsonl` beside the report, written while the run goes on.

One JSON object a line. Each line is written by one call, so a killed process leaves at most one
half-written line, the last one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from io import FileIO
from pathlib import Path
from typing import Any

from ..writing import write_atomically

FILE_NAME = "events.jsonl"
SCHEMA = 1

_OF_EVENT = ("event", "time", "run")

Event = Mapping[str, Any]
"""One line. Each has "event" (its kind), "time" and "run" (the name of the run)."""


class Journal:
    """Appends the events of one run to a journal.

    A journal that cannot be written ends early; the run goes on.

    Attributes:
        problem: reason why the journal ends early; None if it is complete so far.
    """

    def __init__(self, path: Path, run: str, earlier: Iterable[Event] = ()) -> None:
        """Creates the file.

        Args:
            path: the file; its content is replaced.
            run: the name of the run.
            earlier: the events of earlier runs, which the file begins with.
        """
        self.problem: str | None = None
        self._path = path
        self._run = run
        with self._noting_problems():
            write_atomically(path, b"".join(map(_line, earlier)))

    def write(self, event: Event) -> None:
        """Appends an event."""
        if self.problem is not None:
            return
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self._noting_problems(), self._path.open("ab", buffering=0) as file:
            _write_whole(file, _line({"time": time, "run": self._run, **event}))

    @contextlib.contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.problem = f"{self._path} ends early: {error.strerror}"


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a journal; leaves out a line that is not whole or no event.

    Raises:
        OSError: the file cannot be read.
    """
    return list(_events(path.read_bytes().split(b"\n")))


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and all(isinstance(event.get(one), str) for one in _OF_EVENT):
            yield event


def _line(event: Event) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _write_whole(file: FileIO, data: bytes) -> None:
    """Writes data by one call; raises OSError if a full disk takes only a part."""
    if file.write(data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
