"""Reads the verdicts that a run takes over, and tells how many it took (`--vlm-resume`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..reporting.journal import Event
from ..reporting.resume import Earlier, earlier_runs
from ..reporting.rows import TAKEN_OVER
from ..session.conditions import run_conditions
from ..session.run import Run
from .receipt import receipt

_SHOWN = 3


def earlier_of(run: Run, path: Path) -> Earlier:
    """The earlier runs whose verdicts this run may take over.

    Args:
        run: this run.
        path: the report of the earlier runs.

    Raises:
        ConfigurationError: there is no journal, or this run has another set-up.
    """
    return earlier_runs(path, {**receipt(run, []), "conditions": run_conditions(run)})


def lines(rows: Iterable[Mapping[str, Any]], again: Iterable[Event]) -> Iterator[str]:
    """Lines for the terminal: what was taken over from where, and what was judged again.

    Args:
        rows: the rows of the run.
        again: the events about classes that nothing was taken over of.
    """
    origins = Counter(
        (row[TAKEN_OVER]["report"], row[TAKEN_OVER]["date"]) for row in rows if TAKEN_OVER in row
    )
    for (place, date), count in origins.items():
        yield f"{count} results taken over from {place}, judged on {date}"
    for event in again:
        because = event["because"]
        more = f"; and {len(because) - _SHOWN} more" if len(because) > _SHOWN else ""
        shown = "; ".join(because[:_SHOWN]) + more
        yield f"judged again: {event['model']} ({event['suite_class']}): {shown}"
