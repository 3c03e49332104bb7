"""Stored performance runs: `performance/<model>/<digest of the key>.json`, one file for each key.

Two runs are comparable only if everything that affects speed is equal: the weights, the device,
CANN, vLLM and vLLM-Ascend, the serve arguments, the requests. All of this is the key, and the file
contains the whole key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import GoldenError
from ..writing import write_atomically
from .digests import json_digest

SCHEMA = 1
_DIGITS = 16


@dataclass(frozen=True)
class StoredRuns:
    """The stored runs of one key.

    Attributes:
        path: the file, which may not exist yet.
        key: everything that affects speed, JSON-able.
        runs: name -> value of each stored run, oldest first.
    """

    path: Path
    key: Mapping[str, Any]
    runs: Sequence[Mapping[str, float]]


def load(root: Path, slug: str, key: Mapping[str, Any]) -> StoredRuns:
    """The stored runs of a key; none if the file does not exist.

    Args:
        root: the `performance/` directory.
        slug: the model's directory.
        key: everything that affects speed.

    Raises:
        GoldenError: if the file is damaged or has another schema.
    """
    path = root / slug / f"{_name(key)}.json"
    return _read(path) if path.is_file() else StoredRuns(path, key, ())


def load_all(root: Path) -> list[StoredRuns]:
    """The stored runs of all keys, in the order of their files.

    Args:
        root: the `performance/` directory.

    Raises:
        GoldenError: if a file is damaged or has another schema.
    """
    return [_read(path) for path in sorted(root.glob("*/*.json"))]


def append(stored: StoredRuns, run: Mapping[str, float]) -> Path:
    """Appends a run to the stored runs of a key; returns the file."""
    runs = [*map(dict, stored.runs), dict(run)]
    document = {"schema": SCHEMA, "key": stored.key, "runs": runs}
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    write_atomically(stored.path, text.encode("utf-8"))
    return stored.path


def _read(path: Path) -> StoredRuns:
    try:
        document = json.loads(path.read_text("utf-8"))
        runs, key = tuple(_run(run) for run in document["runs"]), document["key"]
        is_whole = document["schema"] == SCHEMA and _name(key) == path.stem
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not is_whole:
        raise _damaged(path, "its key is not the one in its name")
    return StoredRuns(path, key, runs)


def _name(key: Mapping[str, Any]) -> str:
    return json_digest(key)[:_DIGITS]


def _run(stored: Mapping[str, Any]) -> dict[str, float]:
    run = {str(name): float(value) for name, value in stored.items()}
    if not all(math.isfinite(value) for value in run.values()):
        raise ValueError("a figure is not finite")
    return run


def _damaged(path: Path, problem: str) -> GoldenError:
    return GoldenError(
        f"{path} is not a file of stored performance runs ({problem}). Restore it, or delete it "
        "and store runs again with --vlm-save-performance."
    )
