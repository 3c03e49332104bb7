"""The published runs of the library of faults."""

from __future__ import annotations

import functools

from faults.kept import Kept
from faults.library import FAULTS

from helpers.paths import REPOSITORY


@functools.cache
def published_runs() -> Kept:
    """The runs of docs/detected-faults.jsonl."""
    return Kept.read(REPOSITORY / "docs" / "detected-faults.jsonl", FAULTS)
