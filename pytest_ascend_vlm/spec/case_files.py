"""Reads cases from JSON, above all those of `fixtures/cases.json`, and writes them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .case import Capability, Case, Content, Message
from .case_fields import problem_of


def load_cases(fixture_roots: Sequence[Path]) -> tuple[Case, ...]:
    """All cases of all roots, in file order; a case of an earlier root replaces one of its id.

    Args:
        fixture_roots: directories that may contain a `cases.json`.

    Raises:
        ConfigurationError: a file has the wrong form, or an image or video is missing or unusable.
    """
    cases: dict[str, Case] = {}
    for root in fixture_roots:
        path = root / "cases.json"
        if path.is_file():
            for case in _read(path):
                if case.id not in cases:
                    _require_media(path, case)
                    cases[case.id] = case
    return tuple(cases.values())


def _read(path: Path) -> list[Case]:
    cases: dict[str, Case] = {}
    for number, entry in enumerate(_entries(path), start=1):
        try:
            case = _checked(path.parent, entry, cases)
        except ConfigurationError as error:
            name = entry.get("id", "no id")
            raise ConfigurationError(f"{path}: entry {number} ({name}): {error}") from error
        cases[case.id] = case
    return list(cases.values())


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a list of cases: {error!r}.") from error
    entries = document.get("cases") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigurationError(
            f'{path} is not a list of cases. Write {{"cases": [{{"id": "text/capital", "needs": '
            '"text", "prompt": "What is the capital of France?"}]}.'
        )
    return entries


def _checked(root: Path, entry: Mapping[str, Any], others: Mapping[str, Case]) -> Case:
    if problem := problem_of(entry):
        raise ConfigurationError(problem)
    if entry["id"] in others:
        raise ConfigurationError(
            "another entry has the same id, so this one is never asked. Write another id."
        )
    try:
        return read_case(root, entry)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the field 'truth_file' names no text in UTF-8 ({error}). Write the name of one."
        ) from error


def read_case(root: Path, entry: Mapping[str, Any]) -> Case:
    """Reads one case whose fields have their types, see `problem_of`.

    Args:
        root: the directory that the names of files are relative to.
        entry: the fields of the case, of which `id`, `needs` and `prompt` are required;
            `truth_file` in the place of `truth` names a file.
    """
    truth = entry.get("truth")
    if "truth_file" in entry:
        truth = (root / entry["truth_file"]).read_text("utf-8")
    return Case(
        id=entry["id"],
        needs=Capability(entry["needs"]),
        prompt=entry["prompt"],
        images=tuple(root / name for name in entry.get("images", ())),
        videos=tuple(root / name for name in entry.get("videos", ())),
        earlier=tuple(_read_message(root, message) for message in entry.get("earlier", ())),
        truth=truth,
        accepted=tuple(entry.get("accepted", ())),
        box=None if entry.get("box") is None else tuple(entry["box"]),
        max_tokens=entry.get("max_tokens", 64),
        full_only=entry.get("full_only"),
    )


def write_case(case: Case) -> dict[str, Any]:
    """A case in the form that `read_case` reads."""
    return {
        "id": case.id,
        "needs": case.needs.value,
        "prompt": case.prompt,
        "images": [str(path) for path in case.images],
        "videos": [str(path) for path in case.videos],
        "earlier": [_write_message(message) for message in case.earlier],
        "truth": case.truth,
        "accepted": list(case.accepted),
        "box": case.box,
        "max_tokens": case.max_tokens,
        "full_only": case.full_only,
    }


@functools.cache
def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, in pixels."""
    from PIL import Image

    with Image.open(path) as image:
        return image.size


def _read_message(root: Path, entry: Mapping[str, Any]) -> Message:
    content: Content = tuple(
        part if isinstance(part, str) else root / part["image"] for part in entry["content"]
    )
    return Message(entry["role"], content)


def _write_message(message: Message) -> dict[str, Any]:
    content = [part if isinstance(part, str) else {"image": str(part)} for part in message.content]
    return {"role": message.role, "content": content}


def _require_media(path: Path, case: Case) -> None:
    """Requires that each image of a case can be decoded, and that no video is empty."""
    for file in (*case.every_image, *case.videos):
        problem = _file_problem(file)
        if problem is None and file not in case.videos:
            problem = _image_problem(file)
        if problem is not None:
            raise ConfigurationError(f"{path}: {case.id} needs {file}, which {problem}.")


def _file_problem(file: Path) -> str | None:
    if not file.is_file():
        return "does not exist"
    return None if file.stat().st_size else "is empty"


@functools.cache
def _image_problem(file: Path) -> str | None:
    """Reason why Pillow cannot decode an image, or None; each file is decoded once per process."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            image.verify()  # checks the file's own checksums, but does not decode
        with Image.open(file) as image:
            image.load()
    except Exception as error:  # Pillow's decoders raise many kinds of exceptions
        return f"is no image that Pillow can decode ({error})"
    return None
