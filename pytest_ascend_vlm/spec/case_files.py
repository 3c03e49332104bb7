"""Reads the cases of the suite from `fixtures/cases.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .case import Capability, Case


def load_cases(fixture_roots: Sequence[Path]) -> tuple[Case, ...]:
    """All cases of all roots, in file order; if two cases have the same id, the first is used.

    Args:
        fixture_roots: directories that may contain a `cases.json`.

    Raises:
        ConfigurationError: a file has the wrong form, or an image or video is missing.
    """
    cases: dict[str, Case] = {}
    for root in fixture_roots:
        path = root / "cases.json"
        if path.is_file():
            for case in _read(path):
                cases.setdefault(case.id, case)
    return tuple(cases.values())


def _read(path: Path) -> list[Case]:
    try:
        entries = json.loads(path.read_text("utf-8"))["cases"]
        return [_case(path.parent, entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is not a list of cases: {error!r}.") from error


def _case(root: Path, entry: Mapping[str, Any]) -> Case:
    images = tuple(root / name for name in entry.get("images", ()))
    videos = tuple(root / name for name in entry.get("videos", ()))
    for file in (*images, *videos):
        if not file.is_file():
            raise ConfigurationError(
                f"{root / 'cases.json'}: {entry['id']} needs {file}, which does not exist."
            )
    truth = entry.get("truth")
    if "truth_file" in entry:
        truth = (root / entry["truth_file"]).read_text("utf-8")
    return Case(
        id=entry["id"],
        needs=Capability(entry["needs"]),
        prompt=entry["prompt"],
        images=images,
        videos=videos,
        truth=truth,
        accepted=tuple(entry.get("accepted", ())),
        box=tuple(entry["box"]) if "box" in entry else None,
        max_tokens=entry.get("max_tokens", 64),
    )
