"""Requests that no cache has seen: neither the prompt's blocks nor the image's encoding."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from pathlib import Path

from PIL import Image

from ..spec.case import Case, Sampling

_BITS = 5  # of each colour of one pixel: 32,768 versions of an image that nobody can tell apart


class UncachedRequests:
    """Makes requests of a case that differ from each other in nothing that matters.

    A server remembers the image processor's output and the vision encoder's by the pixels, and the
    prompt's blocks by their tokens and a salt. So each request has a salt of its own, and its first
    image differs from all others in the last bits of its last pixel.
    """

    def __init__(self, directory: Path) -> None:
        """Args: directory: where the images are kept."""
        self._directory = directory
        self._numbers = itertools.count(1)

    def case(self, case: Case, scale: float = 1.0) -> Case:
        """The case with an image that was not asked about before, its sides scaled."""
        if not case.images:
            return case
        number = next(self._numbers)
        path = self._directory / f"{number}.png"
        with Image.open(case.images[0]) as image:
            sides = [max(round(side * scale), 1) for side in image.size]
            changed = image.convert("RGB").resize((sides[0], sides[1]))
        corner = (changed.width - 1, changed.height - 1)
        changed.putpixel(corner, _changed(changed.getpixel(corner), number))
        changed.save(path)
        return dataclasses.replace(case, images=(path, *case.images[1:]))

    @staticmethod
    def sampling(max_tokens: int) -> Sampling:
        """Greedy, and salted."""
        return Sampling(max_tokens=max_tokens, cache_salt=secrets.token_hex(8))


def _changed(pixel: object, number: int) -> tuple[int, ...]:
    mask = (1 << _BITS) - 1
    colours = pixel if isinstance(pixel, tuple) else (0, 0, 0)
    return tuple(
        int(colour) ^ (number >> (_BITS * index) & mask) for index, colour in enumerate(colours)
    )
