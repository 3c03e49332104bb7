"""The pictures of the pages that a model read, as files beside the documents that show them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from .sent_files import sent_file

_CRITERIA = "document."
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def files(document: Mapping[str, Any], languages: Iterable[str]) -> dict[str, bytes]:  # noqa: ARG001
    """File name -> content of the pictures; they have no language."""
    return {name: content for _, name, content in _found(document)}


def links(document: Mapping[str, Any]) -> dict[str, str]:
    """The path of a picture, as the report has it -> the name of its file."""
    return {path: name for path, name, _ in _found(document)}


def _found(document: Mapping[str, Any]) -> Iterator[tuple[str, str, bytes]]:
    """Path, file name and content of each picture; one that changed since the run is left out."""
    for image in _images(document):
        path, sha256 = str(image["file"]), str(image.get("sha256"))
        suffix = PurePosixPath(path).suffix.lower()
        content = sent_file(path, sha256, Path()) if suffix in _SUFFIXES else None
        if content is not None:
            yield path, f"page.{sha256[:12]}{suffix}", content


def _images(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    named = {
        (row["model"], row["suite_class"], row["case"])
        for row in document["rows"]
        if row["criterion"].startswith(_CRITERIA)
    }
    for model in document["models"]:
        for case_id, case in (model.get("cases") or {}).items():
            if (model["model"], model["suite_class"], case_id) in named:
                yield from case.get("images") or ()
