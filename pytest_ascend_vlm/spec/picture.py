"""A picture that the suite draws, declared by its size and colour mode."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "I;16", "CMYK")
"""Pillow's colour modes that files of users have."""


@dataclass(frozen=True)
class Picture:
    """A picture of coloured gradients and noise. Equal pictures have equal pixels.

    Attributes:
        width: in pixels.
        height: in pixels.
        mode: one of `MODES`.
    """

    width: int
    height: int
    mode: str = "RGB"

    def __str__(self) -> str:
        return f"{self.width} x {self.height} pixels, mode {self.mode}"

    @property
    def file_name(self) -> str:
        """The name of its file; the format is PNG, or JPEG for CMYK, which PNG does not have."""
        suffix = "jpg" if self.mode == "CMYK" else "png"
        return f"{self.width}x{self.height}-{self.mode.replace(';', '')}.{suffix}"
