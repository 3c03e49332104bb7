"""Reads a report.json that an earlier run wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

FILE_NAME = "report.json"
SCHEMA = 2

_OF_RECEIPT = ("platform", "checkpoint", "simulated", "device", "versions", "seconds", "argv")
_OF_ROW = ("model", "suite_class", "criterion", "case", "status", "reason")


def read(path: Path) -> dict[str, Any]:
    """The content of a report.json.

    Args:
        path: the file, or the directory that contains it.

    Raises:
        ConfigurationError: the file is missing or unreadable, is no report, or has another schema.
    """
    path = path / FILE_NAME if path.is_dir() else path
    try:
        document = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path} ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(no_report(path, error)) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise ConfigurationError(
            f"{path} has schema {schema}, but this version reads schema {SCHEMA}; use the version "
            "that wrote it."
        )
    try:
        require_shape(document)
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(no_report(path, error)) from error
    return dict(document)


def no_report(path: Path | str, error: Exception) -> str:
    """The message about a file that is no report."""
    # The text of this error has all bytes of the file.
    problem = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else repr(error)
    return f"{path} is not a report written by pytest --vlm-report ({problem})."


def require_shape(document: Mapping[str, Any]) -> None:
    """Requires the parts of a report that every command reads.

    Raises:
        LookupError, TypeError, AttributeError: a part is missing, or is something else.
    """
    _require(document, ("schema",))
    _require(document["receipt"], _OF_RECEIPT)
    dict(document["receipt"]["versions"])
    for model in document["models"]:
        _require(model, ("model", "suite_class"))
    for row in document["rows"]:
        _require(row, _OF_ROW)


def _require(part: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        part[name]
