"""The architecture of a checkpoint, as its config.json names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# InternVL has two formats, OpenGVLab's own and that of Transformers. Both are one architecture.
_SAME = {"internvl_chat": "internvl"}


def other_architecture(checkpoint: Path, expected: Path) -> str | None:
    """Reason why a checkpoint is of another architecture than an expected one, or None.

    Compares `model_type`. Nothing is compared if one of them names none.

    Args:
        checkpoint: directory of a checkpoint with a config.json.
        expected: directory of a checkpoint of the expected architecture.
    """
    found, known = _config(checkpoint), _config(expected)
    if found is None:
        return "config.json is damaged"
    types = [(config or {}).get("model_type") for config in (found, known)]
    names = [_SAME.get(str(name), str(name)) for name in types if name]
    if len(set(names)) < 2:
        return None
    return (
        f"its config.json is of the architecture {types[0]}, but the model file declares "
        f"{types[1]} (the architecture of its tiny checkpoint {expected.name}): these are the "
        "weights of another model, or tiny= names the wrong checkpoint"
    )


def architectures(checkpoint: Path) -> tuple[str, ...]:
    """The classes that config.json names for a checkpoint; empty if it names none."""
    names = (_config(checkpoint) or {}).get("architectures")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _config(checkpoint: Path) -> Mapping[str, Any] | None:
    """The content of config.json; None if it is not a JSON object."""
    try:
        config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    except (ValueError, RecursionError):
        return None
    return config if isinstance(config, dict) else None
