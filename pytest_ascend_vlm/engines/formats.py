"""Makes image files of the formats that users send, and the pictures that they show.

A picture is an upright RGB image: turned as EXIF says, transparent pixels on white, 16 bits scaled
to 8. The rest is as Pillow decodes it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    View = Callable[[Picture], Picture]

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_QUALITY = 90
_COLOURS = 16
_PER_LEVEL = 257  # values of 16 bits for each value of 8 bits
_BETWEEN_LEVELS = 100
# As fax machines and scanners write it: compressed by ITU-T T.6, and 0 is white.
_FAX = {"compression": "group4", "tiffinfo": {262: 0}}
_EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"  # the orientation follows


@dataclass(frozen=True)
class Format:
    """One format of image files.

    Attributes:
        suffix: the suffix of a file's name.
        convert: converts an RGB picture to the image that is saved.
        options: Pillow's arguments for saving it.
        mistakes: a way to misread a file -> the picture that a server then sees in it.
    """

    suffix: str
    convert: View
    options: Mapping[str, Any] = field(default_factory=dict)
    mistakes: Mapping[str, View] = field(default_factory=dict)

    def encode(self, picture: Picture) -> bytes:
        """An RGB picture as a file of this format."""
        from PIL import Image

        file, name = io.BytesIO(), Image.registered_extensions()[f".{self.suffix}"]
        self.convert(picture).save(file, name, **self.options)
        return file.getvalue()


def opened(data: bytes) -> Picture:
    """An opened image file."""
    from PIL import Image

    return Image.open(io.BytesIO(data))


def shown(image: Picture) -> Picture:
    """The picture that an opened file shows."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return _from_16_bits(lambda value: value / _PER_LEVEL, image)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        return _on(_WHITE, image)
    return _as_stored(image)


def _as_stored(image: Picture) -> Picture:
    return image.convert("RGB")


def _on(colour: tuple[int, int, int], image: Picture) -> Picture:
    """The picture of an image whose transparent pixels are on a background."""
    from PIL import Image

    rgba, picture = image.convert("RGBA"), Image.new("RGB", image.size, colour)
    picture.paste(rgba, mask=rgba.getchannel("A"))
    return picture


def _from_16_bits(to_8_bits: Callable[[Any], Any], image: Picture) -> Picture:
    import numpy as np
    from PIL import Image

    values = np.round(to_8_bits(np.asarray(image))).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _palette_indices(image: Picture) -> Picture:
    from PIL import Image

    return Image.frombytes("L", image.size, image.tobytes()).convert("RGB")


def _inverted(image: Picture) -> Picture:
    from PIL import ImageChops

    return ImageChops.invert(image).convert("RGB")


def _in_mode(mode: str, picture: Picture) -> Picture:
    return picture.convert(mode)


def _translucent(mode: str, picture: Picture) -> Picture:
    """A picture whose transparency grows from its lower edge to its upper edge."""
    from PIL import Image

    image = picture.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(picture.size))
    return image


def _with_palette(picture: Picture) -> Picture:
    return picture.quantize(_COLOURS)


def _with_transparent_colour(picture: Picture) -> Picture:
    """A picture with a palette whose most frequent colour is transparent."""
    image = _with_palette(picture)
    counts = image.histogram()
    image.info["transparency"] = counts.index(max(counts))
    return image


def _with_16_bits(picture: Picture) -> Picture:
    """The grey picture in 16 bits; no value has the same high and low byte."""
    import numpy as np
    from PIL import Image

    levels = np.asarray(picture.convert("L")).astype(np.int64)
    # This is less than half of a level, and the high byte is still the level.
    offset = np.where(levels < 128, _BETWEEN_LEVELS, -_BETWEEN_LEVELS)
    return Image.fromarray((levels * _PER_LEVEL + offset).astype(np.uint16))


def _exif(orientation: int, suffix: str = "jpg", **options: Any) -> Format:
    exif = _EXIF + bytes([orientation, 0, 0, 0, 0, 0, 0, 0])
    mistakes = {"its EXIF orientation is ignored": _as_stored}
    return Format(suffix, _as_stored, {**options, "exif": exif}, mistakes)


_TRANSPARENCY: Mapping[str, View] = {
    "its transparent pixels are put on black": partial(_on, _BLACK),
    "its transparency is ignored": _as_stored,
}
_PALETTE: Mapping[str, View] = {"the indices of its palette are read as grey": _palette_indices}
_TWO_LEVELS: Mapping[str, View] = {"its black and its white are swapped": _inverted}
_16_BIT_MISTAKES: Mapping[str, View] = {
    "its 16-bit values are clipped at 255": partial(_from_16_bits, lambda value: value),
    "of its 16-bit values only the low byte is read": partial(_from_16_bits, lambda v: v % 256),
}

PNG = Format("png", _as_stored)
"""The format of the pictures that files are compared with."""

LOSSLESS: Mapping[str, Format] = {
    "png-uncompressed": Format("png", _as_stored, {"compress_level": 0}),
    "bmp": Format("bmp", _as_stored),
    "tiff": Format("tiff", _as_stored),
    "webp": Format("webp", _as_stored, {"lossless": True}),
}
"""Encodings that keep every pixel of an RGB picture."""

FORMATS: Mapping[str, Format] = {
    "exif-3": _exif(3, quality=_QUALITY),
    "exif-6": _exif(6, quality=_QUALITY),
    "exif-8": _exif(8, quality=_QUALITY),
    # Not in TIFF: Pillow turns such a picture while it decodes the file.
    "exif-6-png": _exif(6, "png"),
    "exif-6-webp": _exif(6, "webp", lossless=True),
    "rgba": Format("png", partial(_translucent, "RGB"), mistakes=_TRANSPARENCY),
    "grey-alpha": Format("png", partial(_translucent, "L"), mistakes=_TRANSPARENCY),
    "palette": Format("png", _with_palette, mistakes=_PALETTE),
    "palette-transparent": Format(
        "png", _with_transparent_colour, mistakes={**_TRANSPARENCY, **_PALETTE}
    ),
    "gif": Format("gif", _with_palette, mistakes=_PALETTE),
    "bilevel": Format("png", partial(_in_mode, "1"), mistakes=_TWO_LEVELS),
    "fax": Format("tiff", partial(_in_mode, "1"), _FAX, _TWO_LEVELS),
    "grey": Format("png", partial(_in_mode, "L")),
    "grey-jpeg": Format("jpg", partial(_in_mode, "L"), {"quality": _QUALITY}),
    "16-bit": Format("png", _with_16_bits, mistakes=_16_BIT_MISTAKES),
    "cmyk": Format(
        "jpg",
        partial(_in_mode, "CMYK"),
        {"quality": _QUALITY},
        {"its CMYK colours are inverted": _inverted},
    ),
    "progressive": Format("jpg", _as_stored, {"quality": _QUALITY, "progressive": True}),
    "jpeg-20": Format("jpg", _as_stored, {"quality": 20}),
    "webp-alpha": Format(
        "webp", partial(_translucent, "RGB"), {"quality": _QUALITY}, _TRANSPARENCY
    ),
}
"""Formats whose pixels a server has to convert."""
