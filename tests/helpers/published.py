"""The published runs of the library of faults."""

from __future__ import annotations

import functools

from faults.kept import Kept, lines_of
from faults.library import FAULTS

from helpers.paths import REPOSITORY


@functools.cache
def published_runs() -> Kept:
    """The runs of docs/detected-faults.jsonl, whichever versions are installed here."""
    lines = [*lines_of(REPOSITORY / "docs" / "detected-faults.jsonl")]
    kept = Kept(versions=lines[-1]["versions"])
    kept.take(lines, FAULTS)
    return kept
