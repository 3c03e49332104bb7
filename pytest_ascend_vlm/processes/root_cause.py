"""Finds the root cause of an engine's death in its log.

Every process of an engine logs its own end. The last line comes from the API server, which knows
only that another process died: "Engine core initialization failed. See root cause above". Rules,
in this order:

1. A wrong command line is the cause: nothing else has started.
2. A process died of its last exception, or of the exception that it logs as fatal. We ignore an
   exception that only points elsewhere, and one that the API server survived.
3. The deepest process with an exception has the cause: a worker, then the engine core, then the
   API server. Of several workers, the first to raise has it.
4. A native crash is the cause if it comes before that exception.
5. Otherwise the cause is, in this order: the signal that ended a process, as another process
   logged it; an exception that only follows from a problem elsewhere; an error of the device.
6. If the log only points to a cause that it does not contain, a process was killed.
7. Otherwise the cause is unknown; we show the last error in the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .exit_code import exit_code
from .tracebacks import Ended, Line, Process, Raised, raised, read

_USAGE = re.compile(r"[\w./ -]+: error: \S")
_ANSWERED = re.compile(r'"(?:GET|POST|HEAD|PUT|DELETE) \S+ HTTP/[\d.]+" \d{3}')
# Points to a cause in another process or in an earlier line.
_POINTER = re.compile(
    r"[Rr]oot cause|[Ss]ee (?:the )?stack ?trace|check the stack ?trace|EngineDeadError"
    r"|WorkerProc initialization failed|EngineCore encountered an issue"
    r"|Engine process failed|[Ee]ngine loop has|died with exit code|died unexpectedly"
)
_QUOTED = re.compile(r"\w+: Worker failed with error ['\"]")
_QUOTE_ENDS = re.compile(r"['\"], please check the stack ?trace.*", re.DOTALL)
_FATAL = re.compile(r"failed to start|hit an exception|fatal error")
# Exceptions that follow from the death of another process, or that explain nothing.
_CONSEQUENCE = re.compile(
    r"(?:\w+\.)*(?:BrokenPipeError|Connection\w*Error|EOFError|ZMQError|ContextTerminated|error\.Again"
    r"|Dist(?:Backend|Network|Store)Error|CancelledError|KeyboardInterrupt|SystemExit)\b"
    r"|.*(?:[Cc]onnection (?:closed|reset)|[Bb]roken pipe|TCPStore|recvValue|check the logs)"
)
_NATIVE = re.compile(
    r"Fatal Python error: |terminate called after|LLVM ERROR: |Caught signal \d+ "
    r"|\*\*\* (?:SIG[A-Z]+ received|stack smashing)|F\d{4} \d\d:\d\d:\d\d|Out of memory: Killed"
    r"|(?:\S+: )?(?:Segmentation fault|Bus error|Illegal instruction|Aborted|Killed)"
    r"(?: \(core dumped\)| in |$)|double free|free\(\): |malloc\(\): |corrupted |munmap_chunk"
    r"|.*error while loading shared libraries: |.*Assertion .* failed\.$"
    r"|\S*python\S*: (?:No module named|can't open file|Error while finding)"
)
_NATIVE_DETAIL = re.compile(r'\s+(?:what\(\): |File ")')
_SIGNALLED = (
    re.compile(r"proc\(s\): .*'(?P<name>[\w-]+)': (?P<code>-\d+)"),
    re.compile(r"(?<![\w-])(?P<name>[\w-]+)(?: \(PID: \d+\))? died .*exit code:? (?P<code>-\d+)"),
)
# Error codes of CANN, the layer below torch on Ascend: E10001, EZ9999, EI0006, ...
_DEVICE = re.compile(r"\bE[A-Z0-9]\d{4}: (?!Inner Error)")
_ERROR = re.compile(
    r"(?:.{0,60}[\s\[])?(?:ERROR|CRITICAL|FATAL)\b[\]:]?\s|[\w.]*(?:Error|Exception): "
)
_HEADING = re.compile(
    r"failed to start|hit an exception|fatal error|handler failed|Dumping |ERR99999"
)
ENDED_FROM_OUTSIDE = (
    "the log has no error of the process that ended: it was killed, most often by the kernel "
    "because memory ran out, or crashed in native code"
)
# Lines of a message without information.
_EMPTY = re.compile(r'[\s^~"]*$|\s*For further information visit')
# The first line of a pydantic message; the problem itself is in the second.
_ONLY_COUNTS = re.compile(r"\d+ validation errors? for \S+$")
_MESSAGE_LINES = 5
_CHAIN_LINES = 3
_DEVICE_LINES = 3
_LINE_LENGTH = 400


@dataclass(frozen=True)
class RootCause:
    """The root cause of an engine's death.

    Attributes:
        lines: lines of the log; the first one is understandable alone.
        process: the process that logged them; None if the log does not name it.
    """

    lines: tuple[str, ...]
    process: Process | None = None


def root_cause(log: str) -> RootCause | None:
    """The root cause of an engine's death; None if its log does not contain one.

    Args:
        log: the whole output of the engine's processes.
    """
    lines = read(log)
    answered = max((line.index for line in lines if _ANSWERED.search(line.text)), default=-1)
    exceptions = raised(lines)
    ends = [one for one in exceptions if _links(one) and _is_fatal(one, answered)]
    return (
        _wrong_command_line(lines)
        or _exception_or_crash(lines, [one for one in ends if not _is_consequence(one)])
        or _signalled(lines)
        or _exception_or_crash(lines, ends)
        or _device_report(lines)
        or _ended_from_outside(lines)
        or _logged_error(lines[answered + 1 :], exceptions)
    )


def _wrong_command_line(lines: Sequence[Line]) -> RootCause | None:
    if not any(line.text.startswith("usage:") for line in lines):
        return None
    errors = [line for line in lines if line.level is None and _USAGE.match(line.text)]
    return _cause([errors[-1].text], errors[-1].process) if errors else None


def _exception_or_crash(lines: Sequence[Line], ends: Iterable[Raised]) -> RootCause | None:
    first = min(
        _last_exceptions(ends), key=lambda one: (-_depth(one), one.line.index), default=None
    )
    crash = next((line for line in lines if _NATIVE.match(line.text)), None)
    if crash is not None and (first is None or crash.index < first.line.index):
        detail = _detail(lines[crash.index + 1 : crash.index + 5])
        return _cause([crash.text, *detail], crash.process)
    if first is None:
        return None
    shown = _exception_lines(first)
    return _cause([*shown, *_device_lines(lines, first.process, shown)], first.process)


def _last_exceptions(ends: Iterable[Raised]) -> list[Raised]:
    """The exception that each process died of: the last one, or the last fatal one."""
    found: dict[Process | None, Raised] = {}
    for one in ends:
        known = found.get(one.process)
        if known is None or _FATAL.search(one.heading) or not _FATAL.search(known.heading):
            found[one.process] = one
    return list(found.values())


def _detail(after: Iterable[Line]) -> list[str]:
    """The message of a C++ exception, or the first Python line of a crashed process."""
    unprefixed = (line.text for line in after if line.process is None)
    return [text for text in unprefixed if _NATIVE_DETAIL.match(text)][:1]


def _signalled(lines: Iterable[Line]) -> RootCause | None:
    for line in lines:
        for pattern in _SIGNALLED:
            if found := pattern.search(line.text):
                return _cause([f"{found['name']} ended with {exit_code(int(found['code']))}"], None)
    return None


def _device_report(lines: Sequence[Line]) -> RootCause | None:
    reported = _device_lines(lines, None, [])
    return _cause(reported, None) if reported else None


def _ended_from_outside(lines: Iterable[Line]) -> RootCause | None:
    if not any(_POINTER.search(line.text) for line in lines):
        return None
    return _cause([ENDED_FROM_OUTSIDE], None)


def _logged_error(lines: Iterable[Line], exceptions: Iterable[Raised]) -> RootCause | None:
    known = {link.line.index for one in exceptions for link in one.chain()}
    errors = [line for line in lines if _is_error(line) and line.index not in known]
    if not errors:
        return None
    return _cause([f"unknown; the last error in the log is: {errors[-1].text}"], errors[-1].process)


def _is_error(line: Line) -> bool:
    if _HEADING.search(line.text) or line.text.startswith(" ") or not line.text:
        return False
    logged = line.level in {"ERROR", "CRITICAL"}
    return logged or (line.level is None and _ERROR.match(line.text) is not None)


def _links(one: Raised) -> list[Raised]:
    """An exception's chain, latest first, without those that only point elsewhere."""
    return [link for link in one.chain() if not _POINTER.search(_headline(link))]


def _message(one: Raised) -> list[str]:
    """The message. If it quotes the message of another process, that message."""
    whole = "\n".join(one.message)
    quoted = _QUOTED.match(whole)
    text = _QUOTE_ENDS.sub("", whole[quoted.end() :]) if quoted else whole
    return [line for line in text.split("\n") if not _EMPTY.match(line)] or [text]


def _headline(one: Raised) -> str:
    """The first line; the first two of a pydantic message, whose first line is only a count."""
    first, *more = _message(one)
    return ": ".join([first, more[0].strip()]) if more and _ONLY_COUNTS.search(first) else first


def _is_fatal(one: Raised, answered: int) -> bool:
    survived = one.line.index < answered and _depth(one) == 0
    return one.ended is not Ended.NOTHING and not survived


def _is_consequence(one: Raised) -> bool:
    return one.ended is Ended.THREAD or _CONSEQUENCE.match(_headline(_links(one)[0])) is not None


def _depth(one: Raised) -> int:
    """Depth of its process: 0 for the API server, 1 for the engine core, 2 for a worker."""
    name = one.process.name.lower() if one.process else ""
    return 2 if "worker" in name else 1 if "engine" in name else 0


def _exception_lines(one: Raised) -> list[str]:
    first, *earlier = _links(one)
    headline, message = _headline(first), _message(first)
    more = message[1 if headline == message[0] else 2 :][:_MESSAGE_LINES]
    return [headline, *more, *(f"{link.link} {_headline(link)}" for link in earlier[:_CHAIN_LINES])]


def _device_lines(lines: Iterable[Line], process: Process | None, known: list[str]) -> list[str]:
    """The device errors that a process logged, without the lines in `known`."""
    texts = (line.text for line in lines if process is None or line.process in {None, process})
    found = dict.fromkeys(text for text in texts if _DEVICE.search(text) and text not in known)
    return list(found)[:_DEVICE_LINES]


def _cause(texts: Iterable[str], process: Process | None) -> RootCause:
    lines = (text.strip() for text in texts)
    return RootCause(
        tuple(
            line if len(line) <= _LINE_LENGTH else f"{line[:_LINE_LENGTH]} ..." for line in lines
        ),
        process,
    )
