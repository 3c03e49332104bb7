"""Makes requests cold: a server has to compute their images and prompt again.

A server keeps the output of the image processor and of the vision tower by a hash of the image, and
blocks of the prompt by their tokens and the `cache_salt`. vLLM hashes the image's file or its
pixels, which depends on the version; a `uuid` at the image part replaces the hash. So a cold
request has a new salt, and each of its images and clips has a new uuid and a comment in its file.
The pixels stay the same.
"""

from __future__ import annotations

import secrets
import struct
import zlib
from collections.abc import Callable

from .messages import Part, with_data

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_END = 33  # the signature and the first chunk, IHDR
_JPEG = b"\xff\xd8"
_MP4 = b"ftyp"  # at offset 4


def new_salt() -> str:
    """A `cache_salt` that no other request has."""
    return secrets.token_hex(8)


def cold_part(part: Part) -> Part:
    """An image or video part that no cache of a server contains; its pixels are the same."""
    mark = new_salt()
    return {**with_data(part, lambda data: with_comment(data, mark)), "uuid": mark}


def cold_part_at(url: str) -> Callable[[Part], Part]:
    """Makes an image part refer to a URL that no cache of a server contains."""
    return lambda part: {**part, "image_url": {"url": url}, "uuid": new_salt()}


def without_uuid(part: Part) -> Part:
    """The part for a server that does not accept a `uuid`."""
    return {name: value for name, value in part.items() if name != "uuid"}


def with_comment(data: bytes, comment: str) -> bytes:
    """A PNG, JPEG or MP4 file with a comment; a file of another format is unchanged."""
    text = comment.encode("ascii")
    if data.startswith(_PNG):
        chunk = b"tEXt" + b"Comment\0" + text
        framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:_PNG_HEADER_END] + framed + data[_PNG_HEADER_END:]
    if data.startswith(_JPEG):
        segment = b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text
        return data[:2] + segment + data[2:]
    if data[4:8] == _MP4:
        return data + struct.pack(">I", len(text) + 8) + b"free" + text
    return data
