"""The last lines of an engine's log, as an error shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TAIL_LINES = 30

# What is printed around the error that a reader looks for: leak reports, usage texts.
_NOISE = re.compile(
    r"\s*$|nanobind:|See https://nanobind| - leaked | - \.\.\. skipped"
    r"|.*resource_tracker|  warnings\.warn|\s+\[-"
)


def tail(log: str, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log that tell something, indented."""
    kept: Sequence[str] = [line for line in log.splitlines() if not _NOISE.match(line)][-lines:]
    return "\n".join(f"  | {line}" for line in kept) or "  | (the log is empty)"
