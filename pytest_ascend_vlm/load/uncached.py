"""Requests that miss every cache of a server: the prefix cache and the image caches."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from PIL import Image

from ..engines.cold import new_salt
from ..spec.case import Case, Sampling

_BITS = 5  # changed bits per colour channel of one pixel: 32,768 visually identical images


class UncachedRequests:
    """Makes variants of a case that are equivalent but do not hit a cache.

    A server caches the outputs of the image processor and of the vision encoder by the image's
    pixels, and prompt blocks by their tokens and the `cache_salt`. Therefore each request has its
    own salt, and its first image its own low bits in the last pixel.
    """

    def __init__(self, directory: Path) -> None:
        """Args: directory: existing directory that the images are written to."""
        self._directory = directory
        self._numbers = itertools.count(1)

    def case(self, case: Case, scale: float = 1.0) -> Case:
        """The case with a variant of its first image, both sides scaled by `scale`."""
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
        """Greedy sampling with a new salt."""
        return Sampling(max_tokens=max_tokens, cache_salt=new_salt())


def _changed(pixel: object, number: int) -> tuple[int, ...]:
    mask = (1 << _BITS) - 1
    colours = pixel if isinstance(pixel, tuple) else (0, 0, 0)
    return tuple(
        int(colour) ^ (number >> (_BITS * index) & mask) for index, colour in enumerate(colours)
    )
