"""The pictures of the requests as data URIs, each once."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..sent_files import sent_file

_SIDE = 720
"""The longer side of a picture on the page, pixels."""

NOT_FOUND, LEFT_OUT = "not found", "left out"


@dataclass(frozen=True)
class Picture:
    """A picture of a request.

    Attributes:
        file: its path, as the report has it.
        width: its width, pixels; 0 if the report does not have it.
        height: its height, pixels.
        uri: its data URI, or the reason why there is none: `NOT_FOUND` or `LEFT_OUT`.
    """

    file: str
    width: int
    height: int
    uri: str


@dataclass
class Pictures:
    """The images of the cases; an image that several cases use is there once.

    Attributes:
        images: the images, as report.json has them, in the order in which they were added.
    """

    images: list[Mapping[str, Any]] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def add(self, image: Mapping[str, Any]) -> int:
        """Adds an image of a case; returns its index."""
        digest = str(image.get("sha256") or image["file"])
        if digest not in self._places:
            self._places[digest] = len(self.images)
            self.images.append(image)
        return self._places[digest]

    def encoded(self, budget: int) -> list[Picture]:
        """The pictures of the images.

        Args:
            budget: number of bytes that they may have together; pictures beyond it are left out.
        """
        found = []
        for image in self.images:
            uri = _uri(str(image["file"]), str(image.get("sha256")))
            if len(uri) > budget:
                uri = LEFT_OUT
            budget -= len(uri)
            width, height = int(image.get("width") or 0), int(image.get("height") or 0)
            found.append(Picture(str(image["file"]), width, height, uri))
        return found


def _uri(name: str, sha256: str) -> str:
    from PIL import Image

    content = sent_file(name, sha256, Path())
    if content is None:
        return NOT_FOUND
    try:
        return _encoded(content)
    except (OSError, ValueError, Image.DecompressionBombError):
        return NOT_FOUND


def _encoded(content: bytes) -> str:
    """A picture, smaller, as PNG or JPEG: that with fewer bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG")
    picture.save(jpeg, "JPEG", quality=80)
    kind, data = min(
        ("png", png.getvalue()), ("jpeg", jpeg.getvalue()), key=lambda one: len(one[1])
    )
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
