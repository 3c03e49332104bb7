"""The pictures of the pages that a model read, as files beside the documents that show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .sent_files import sent_file

_CRITERIA = "document."
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        name: the name of its file beside the documents.
        content: the file.
    """

    name: str
    content: bytes


def pictures(document: Mapping[str, Any]) -> dict[str, Picture]:
    """The path of each picture, as the report has it -> the picture.

    One that changed since the run is left out.
    """
    found = {}
    for image in _images(document):
        path, sha256 = str(image["file"]), str(image.get("sha256"))
        suffix = PurePosixPath(path).suffix.lower()
        content = sent_file(path, sha256, Path()) if suffix in _SUFFIXES else None
        if content is not None:
            found[path] = Picture(f"page.{sha256[:12]}{suffix}", content)
    return found


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
