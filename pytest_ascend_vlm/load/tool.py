"""Runs a load tool in a process that cannot outlive this one, and tells its progress."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ServerError
from ..processes.supervised import SupervisedProcess
from ..progress import ProgressCallback

ANSWER_SECONDS = 120.0
"""Maximum time of an answer, or of answers that are computed together."""


@dataclass(frozen=True)
class Budget:
    """How much a tool does, and how long it may take.

    Attributes:
        steps: the total of its progress bar.
        seconds: the maximum.
        overdue: the message if it takes longer.
    """

    steps: int
    seconds: float
    overdue: str


def run(process: SupervisedProcess, budget: Budget, on_progress: ProgressCallback) -> int:
    """Runs a tool; returns its exit code.

    Args:
        process: the tool.
        budget: its steps and its time.
        on_progress: called with the number of steps so far.

    Raises:
        ServerError: the tool exceeds its time.
    """

    def on_poll(elapsed: float) -> None:
        done = re.findall(rf"(\d+)/{budget.steps} \[", process.log)
        steps = budget.steps
        on_progress(f"{done[-1]} of {steps}, {elapsed:.0f} s" if done else f"{elapsed:.0f} s")
        if elapsed > budget.seconds:
            raise ServerError(process.with_tail(budget.overdue))

    return process.run(on_poll)
