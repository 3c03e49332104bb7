"""Writes the files of a report to a directory, and removes those that an earlier report left there.

A document of a model that the report no longer has would stay beside the new ones. A hidden file
lists what was written, with digests: only a file that still has its digest is removed, so that no
other file and nothing that somebody changed is lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..writing import write_atomically
from .language import LANGUAGES
from .reading import FILE_NAME

LIST = ".ascend-vlm-files.json"
"""File name -> SHA-256 of what was written."""


@dataclass(frozen=True)
class Written:
    """What was written to a directory.

    Attributes:
        paths: the files of the report.
        removed: the files of an earlier report that are gone.
    """

    paths: tuple[Path, ...]
    removed: tuple[Path, ...]

    @property
    def lines(self) -> list[str]:
        """One line for each file."""
        gone = (f"removed, because the report no longer has it: {path}" for path in self.removed)
        return [*(f"written: {path}" for path in self.paths), *gone]


def write_report(files: Iterable[tuple[str, str | bytes]], directory: Path) -> Written:
    """Writes the files of a report, given as (name, content), each as it comes.

    Files of the same report in another language, and report.json, stay.

    Raises:
        OSError: a file cannot be written or removed.
    """
    digests: dict[str, str] = {}
    for name, content in files:
        data = as_bytes(content)
        write_atomically(directory / name, data)
        digests[name] = _sha256(data)
    earlier, subjects = _listed(directory), {_subject(name) for name in [FILE_NAME, *digests]}
    stale = {name: sha256 for name, sha256 in earlier.items() if _subject(name) not in subjects}
    removed = tuple(_removed(stale, directory))
    kept = {name: sha256 for name, sha256 in earlier.items() if name not in stale}
    listed = {**kept, **digests}
    write_atomically(directory / LIST, json.dumps(listed, indent=1).encode() + b"\n")
    return Written(tuple(directory / name for name in digests), removed)


def as_bytes(content: str | bytes) -> bytes:
    """The content of a file; a text in UTF-8."""
    return content if isinstance(content, bytes) else content.encode("utf-8", "replace")


def _subject(name: str) -> str:
    """The name of a file without its language."""
    endings = (f".{language}.md" for language in LANGUAGES)
    return next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)


def _listed(directory: Path) -> dict[str, str]:
    """The files that the list names in this directory; none if it is no list of ours."""
    try:
        told = json.loads((directory / LIST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = told.items() if isinstance(told, dict) else ()
    return {name: str(sha256) for name, sha256 in pairs if Path(name).name == name}


def _removed(stale: Mapping[str, str], directory: Path) -> Iterator[Path]:
    for path, sha256 in ((directory / name, sha256) for name, sha256 in stale.items()):
        if path.is_file() and _sha256(path.read_bytes()) == sha256:
            path.unlink()
            yield path


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
