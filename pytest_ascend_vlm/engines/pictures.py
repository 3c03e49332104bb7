"""Draws pictures and writes their files."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..spec.picture import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

_NOISE = 96  # of 255; the rest is a gradient
_GOLDEN_RATIO = 0.618  # hues at this distance are far from those of their neighbours


def write(picture: Picture, directory: Path) -> Path:
    """Draws a picture and writes its file; returns the file's path."""
    path = directory / picture.file_name
    # Pictures are many and are read once, so a file may be large if it is written fast.
    draw(picture).save(path, compress_level=1)
    return path


def draw(picture: Picture) -> Image:
    """A picture of coloured gradients and noise; its pixels depend only on size and mode."""
    from PIL import Image

    random = np.random.default_rng((picture.width, picture.height))
    shape = (picture.height, picture.width)
    if picture.mode == "I;16":
        return Image.fromarray(random.integers(0, 1 << 16, shape, dtype=np.uint16))
    across = np.linspace(0, 255 - _NOISE, picture.width)[None, :, None] * [1.0, 0.0, 0.5]
    down = np.linspace(0, 255 - _NOISE, picture.height)[:, None, None] * [0.0, 1.0, 0.5]
    noise = random.integers(0, _NOISE, (*shape, 3), dtype=np.uint8)
    drawn = Image.fromarray((across + down).astype(np.uint8) + noise)
    if picture.mode in {"RGBA", "LA"}:
        drawn = drawn.convert(picture.mode)
        drawn.putalpha(Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)))
        return drawn
    return drawn.convert(picture.mode)


def draw_pages(page: Path, width: int, height: int) -> Image:
    """Copies of a page side by side, each in a colour of its own, cut to a size."""
    from PIL import Image

    with Image.open(page) as opened:
        original = opened.convert("RGB")
    sheet = Image.new("RGB", (width, height))
    places = [
        (left, top)
        for top in range(0, height, original.height)
        for left in range(0, width, original.width)
    ]
    for number, place in enumerate(places):
        red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.5, 1.0)
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        sheet.paste(Image.blend(original, Image.new("RGB", original.size, colour), 0.3), place)
    return sheet
