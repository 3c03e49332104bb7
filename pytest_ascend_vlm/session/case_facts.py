"""A case as the report shows it: the conversation, and the files that were sent."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..spec.case import IMAGE_MARK, Case, Message
from ..spec.case_files import image_size


def case_facts(case: Case, fixture_roots: Sequence[Path]) -> dict[str, Any]:
    """The facts of a case, as JSON values.

    Args:
        case: the case, with the model's own prompt.
        fixture_roots: the directories that files are named relative to.
    """
    return {
        "group": case.group,
        "messages": [_message(message) for message in case.conversation],
        "images": [_image(path, fixture_roots) for path in case.every_image],
        "videos": [_file(path, fixture_roots) for path in case.videos],
        "max_tokens": case.max_tokens,
        "truth": case.truth,
    }


def _message(message: Message) -> dict[str, Any]:
    images = sum(isinstance(part, Path) for part in message.content)
    return {"role": message.role, "text": _text(message), "images": images}


def _text(message: Message) -> str:
    """The texts of a message; with marks for its images unless the images precede the text."""
    texts = [part for part in message.content if isinstance(part, str)]
    if message.content[-len(texts) :] == tuple(texts):
        return "".join(texts)
    return "".join(IMAGE_MARK if isinstance(part, Path) else part for part in message.content)


def _image(path: Path, roots: Iterable[Path]) -> dict[str, Any]:
    width, height = image_size(path)
    return {**_file(path, roots), "width": width, "height": height}


def _file(path: Path, roots: Iterable[Path]) -> dict[str, Any]:
    return {"file": _name(path, roots), "sha256": _sha256(path)}


def _name(path: Path, roots: Iterable[Path]) -> str:
    """A file's path from its root on, `fixtures/pages/page-01.png`; any other path as it is."""
    root = next((root for root in roots if path.is_relative_to(root)), None)
    return path.as_posix() if root is None else path.relative_to(root.parent).as_posix()


@functools.cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
