"""What long operations report while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ProgressCallback = Callable[[str], None]
"""Called with one line of text, which replaces the previous line."""


@dataclass(frozen=True)
class Step:
    """The work that a process of the run does at the moment.

    Attributes:
        phase: the name of the work: "server: weights", "judging".
        detail: its progress: "3 of 10"; empty if it has none.
        seconds: time since its start; None if it does not tell.
        budget_seconds: the time that it may take; None if it is not limited.
    """

    phase: str
    detail: str = ""
    seconds: float | None = None
    budget_seconds: float | None = None


StepCallback = Callable[[Step], None]
