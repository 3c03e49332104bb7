"""Parses a log: the process that wrote each line, and the exceptions that were raised.

The processes of one engine share a log. A line may begin with its process, `(EngineCore pid=12)`,
and its logger's prefix, `ERROR 11-25 20:01:02 [core.py:1195]`. Both depend on vLLM's version.
Tracebacks of several processes interleave line by line, so each writer is parsed separately.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..control_characters import without_terminal_codes

# Before it there may be a dot of a progress bar, or the rest of a line that was cut off.
_PROCESS = re.compile(r"[^\w([]{0,3}\((?P<name>[A-Za-z_][^()]*?) pid=(?P<pid>\d+)[^()]*\) ?")
_RANK = re.compile(r"\[rank\d+\]: ?")
_LOGGED = re.compile(
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d\S* "
    r"(?P<where>\[?[^\]\s]+:\d+\]) ?"
)
_BEGINS = "Traceback (most recent call last):"
_LINKS = {
    "The above exception was the direct cause": "caused by",
    "During handling of the above exception": "while handling",
}
# A class's dotted name, alone or with its message.
_EXCEPTION = re.compile(
    r"(?!DEBUG|INFO|WARNING|ERROR|CRITICAL)"
    r"(?:[A-Za-z_]\w*\.(?:<locals>\.)?)*(?:[A-Z_]\w*|error|timeout|\w+(?:error|exception))(?::|$)"
)
_NAMED = re.compile(r"Process (\S+):$")
# Begins something else, so the exception's message has ended.
_OTHER = re.compile(
    r"(?:INFO|WARNING|ERROR|DEBUG)\b|Process \S+:$|\[W\d|\S+\.py:\d+: |usage:|nanobind:|sys:1:"
    r"|Exception (?:ignored|in thread)|Error in atexit|\[ERROR\] .*ERR99999"
    r"|.*(?:failed to start|hit an exception)\.$"
)
_MESSAGE_LINES = 60
_READ_LENGTH = 2000


@dataclass(frozen=True)
class Process:
    """A process, as a log names it.

    Attributes:
        name: `APIServer`, `EngineCore_DP0`, `Worker_TP1`, `VllmWorker rank=1`, ...
        pid: its process id; None if the log does not contain it.
    """

    name: str
    pid: str | None = None

    def __str__(self) -> str:
        return f"{self.name}, pid {self.pid}" if self.pid else self.name


@dataclass(frozen=True)
class Line:
    """A line of a log.

    Attributes:
        index: number of the line in the log, from 0.
        process: the process that wrote it; None if unknown.
        level: the logger's level; None if it was not written by a logger.
        where: the logger's file and line.
        text: the line without its prefixes.
    """

    index: int
    process: Process | None
    level: str | None
    where: str | None
    text: str


class Ended(enum.Enum):
    """The scope that an exception ended."""

    PROCESS = "process"
    THREAD = "thread"
    NOTHING = "nothing"


# The line before a traceback that did not end its process.
_HEADINGS = {
    "Exception in thread": Ended.THREAD,
    "Exception ignored": Ended.NOTHING,
    "Error in atexit": Ended.NOTHING,
}


@dataclass(eq=False)
class Raised:
    """The exception at the end of a traceback.

    Attributes:
        line: the line that names the exception.
        process: the process that raised it; None if the log does not name it.
        ended: the scope that it ended, as far as the log shows.
        heading: the line right before its traceback.
        message: the line that names it, and the further lines of its message.
        before: the previous exception of its chain, if any.
        link: how it led to the next one of its chain: "caused by", "while handling", or "".
    """

    line: Line
    process: Process | None
    ended: Ended
    heading: str
    message: list[str]
    before: Raised | None = None
    link: str = ""

    def chain(self) -> list[Raised]:
        """The exception and all that led to it, latest first."""
        return [self, *(self.before.chain() if self.before else [])]


def read(log: str) -> list[Line]:
    """Parses the lines of a log; removes colours and control characters."""
    return [_line(index, raw) for index, raw in enumerate(log.split("\n"))]


def raised(lines: Iterable[Line]) -> list[Raised]:
    """The exceptions in a log, in its order. A chain is represented by its last exception."""
    writers: dict[object, _Writer] = {}
    for line in lines:
        writers.setdefault((line.process, line.level, line.where), _Writer()).take(line)
    found = (one for writer in writers.values() for one in writer.found)
    return sorted(found, key=lambda one: one.line.index)


def plain(text: str) -> str:
    """A line without colours and control characters, at most 2000 characters."""
    text = text[:_READ_LENGTH]
    if text.isprintable():
        return text
    text = without_terminal_codes(text).replace("\t", "    ")
    return "".join(char for char in text if char.isprintable())


def _line(index: int, raw: str) -> Line:
    rest, process = plain(raw), None
    while found := _PROCESS.match(rest):
        process, rest = Process(found["name"], found["pid"]), rest[found.end() :]
    if rank := _RANK.match(rest):
        rest = rest[rank.end() :]
    logged = _LOGGED.match(rest)
    if logged is None:
        return Line(index, process, None, None, rest)
    return Line(index, process, logged["level"], logged["where"], rest[logged.end() :])


def _ended(line: Line, heading: str) -> Ended:
    if line.level not in {None, "ERROR", "CRITICAL"}:
        return Ended.NOTHING
    ends = (ended for begin, ended in _HEADINGS.items() if heading.startswith(begin))
    return next(ends, Ended.PROCESS)


@dataclass
class _Writer:
    """Parses the lines of one logger of a process, or the lines written without a logger."""

    found: list[Raised] = field(default_factory=list)
    _in_traceback: bool = False
    _link: str = ""
    _heading: str = ""
    _latest: Raised | None = None

    def take(self, line: Line) -> None:
        """Parses the writer's next line."""
        text = line.text.rstrip()
        link = next((link for begin, link in _LINKS.items() if text.startswith(begin)), None)
        if text.endswith(_BEGINS):
            self._in_traceback = True
        elif self._in_traceback:
            if _EXCEPTION.match(text):
                self._finish(line, text)
        elif link is not None:
            self._link = link
        elif self._latest is not None and self._continues(self._latest, text):
            self._latest.message.append(text)
        elif text:
            self._latest, self._heading = None, text

    def _finish(self, line: Line, text: str) -> None:
        before = self._latest if self._link else None
        heading = before.heading if before else self._heading
        named = _NAMED.match(heading)
        process = line.process or (Process(named[1]) if named else None)
        one = Raised(line, process, _ended(line, heading), heading, [text], before)
        if before is not None:
            before.link = self._link
            self.found.remove(before)
        self.found.append(one)
        self._in_traceback, self._link, self._heading, self._latest = False, "", "", one

    @staticmethod
    def _continues(latest: Raised, text: str) -> bool:
        return len(latest.message) < _MESSAGE_LINES and not _OTHER.match(text)
