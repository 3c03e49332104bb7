"""Converts cases to chat messages of the OpenAI API."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path
from typing import Any

from ..spec.case import Case


def messages(case: Case) -> list[dict[str, Any]]:
    """A case as chat messages: images and videos as data URLs, then the text."""
    images = [image_part(path.read_bytes(), _mime(path)) for path in case.images]
    videos = [video_part(path.read_bytes(), _mime(path)) for path in case.videos]
    text = {"type": "text", "text": case.prompt}
    media = [*images, *videos]
    return [{"role": "user", "content": [*media, text] if media else case.prompt}]


def image_part(data: bytes, mime: str) -> dict[str, Any]:
    """An image as a content part of a message."""
    return _part("image_url", data, mime)


def video_part(data: bytes, mime: str) -> dict[str, Any]:
    """A video as a content part of a message."""
    return _part("video_url", data, mime)


def _part(kind: str, data: bytes, mime: str) -> dict[str, Any]:
    url = f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
    return {"type": kind, kind: {"url": url}}


def _mime(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
