"""Stored performance runs: `performance/<model>/<digest of the key>.json`, one file for each key.

Two runs compare only where everything that decides about speed is equal: the weights, the device,
CANN, vLLM and vLLM-Ascend, the serve arguments, the requests. All of that is the key, and it is in
the file in full.
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
    """What was stored for one key.

    Attributes:
        path: the file; it need not exist.
        key: what decides about speed, JSON-able.
        runs: name -> value of each stored run, oldest first.
    """

    path: Path
    key: Mapping[str, Any]
    runs: Sequence[Mapping[str, float]]


def load(root: Path, slug: str, key: Mapping[str, Any]) -> StoredRuns:
    """The stored runs of a key; none where there is no file.

    Args:
        root: the `performance/` directory.
        slug: the model's directory.
        key: what decides about speed.

    Raises:
        GoldenError: the file is damaged or of another form.
    """
    path = root / slug / f"{json_digest(key)[:_DIGITS]}.json"
    if not path.is_file():
        return StoredRuns(path, key, ())
    try:
        document = json.loads(path.read_text("utf-8"))
        runs = tuple(_run(run) for run in document["runs"])
        same = document["schema"] == SCHEMA and json_digest(document["key"]) == json_digest(key)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not same:
        raise _damaged(path, "its key is not the one in its name")
    return StoredRuns(path, key, runs)


def append(stored: StoredRuns, run: Mapping[str, float]) -> Path:
    """Stores one more run of a key; returns the file."""
    runs = [*map(dict, stored.runs), dict(run)]
    document = {"schema": SCHEMA, "key": stored.key, "runs": runs}
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    write_atomically(stored.path, text.encode("utf-8"))
    return stored.path


def _run(stored: Mapping[str, Any]) -> dict[str, float]:
    run = {str(name): float(value) for name, value in stored.items()}
    if not all(math.isfinite(value) for value in run.values()):
        raise ValueError("a figure is not finite")
    return run


def _damaged(path: Path, what: str) -> GoldenError:
    return GoldenError(
        f"{path} is no performance stored ({what}). Restore it, or delete it and store runs anew "
        "with --vlm-save-performance."
    )
