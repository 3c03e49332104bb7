"""Converts cases to chat messages of the OpenAI API."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..spec.case import Case, Content

Part = dict[str, Any]
"""A content part of a message."""

_BASE64 = ";base64,"


def messages(
    case: Case, change: Callable[[Part], Part] = lambda part: part
) -> list[dict[str, Any]]:
    """A case as chat messages, with images and videos as data URLs.

    Args:
        case: the case.
        change: changes each image and video part.
    """
    videos = [change(video_part(path.read_bytes(), _mime(path))) for path in case.videos]
    earlier = [
        {"role": message.role, "content": _content(message.content, [], change)}
        for message in case.earlier
    ]
    last = _content(case.conversation[-1].content, videos, change)
    return [*earlier, {"role": "user", "content": last}]


def _content(parts: Content, videos: list[Part], change: Callable[[Part], Part]) -> Any:
    """The content of a message; a single text is a string, as most clients send it."""
    if not videos and len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else change(image_part(part.read_bytes(), _mime(part)))
        for part in parts
    ]
    return [*videos, *content]


def image_part(data: bytes, mime: str) -> Part:
    """An image as a content part of a message."""
    return _part("image_url", data, mime)


def video_part(data: bytes, mime: str) -> Part:
    """A video as a content part of a message."""
    return _part("video_url", data, mime)


def with_data(part: Part, change: Callable[[bytes], bytes]) -> Part:
    """A part with another file in its data URL."""
    kind = part["type"]
    head, _, data = part[kind]["url"].partition(_BASE64)
    changed = base64.b64encode(change(base64.b64decode(data))).decode("ascii")
    return {**part, kind: {**part[kind], "url": f"{head}{_BASE64}{changed}"}}


def _part(kind: str, data: bytes, mime: str) -> Part:
    url = f"data:{mime}{_BASE64}{base64.b64encode(data).decode('ascii')}"
    return {"type": kind, kind: {"url": url}}


def _mime(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
