"""Cuts images into tiles with PIL, as vLLM and OpenGVLab's code do, equal to the bit.

Transformers' own image processor for InternVL cuts the same tiles, but resizes with torchvision.
Its pixels are up to 15 of 255 levels off where an image is strongly shrunk.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from PIL import Image

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
"""Of ImageNet; checkpoints in this format have no preprocessor_config.json."""

Grid = tuple[int, int]
"""Columns and rows of tiles."""


@functools.cache
def grids(least: int, most: int) -> tuple[Grid, ...]:
    """Every grid of `least` to `most` tiles, those of few tiles first.

    Two grids of as many tiles are in the order in which Python iterates over a set of such pairs,
    as in OpenGVLab's code. The order matters where both are as close to an image's shape.
    """
    pairs = {
        (columns, rows)
        for tiles in range(least, most + 1)
        for columns in range(1, tiles + 1)
        for rows in range(1, min(tiles, most // columns) + 1)
        if least <= columns * rows
    }
    return tuple(sorted(pairs, key=lambda pair: pair[0] * pair[1]))


def closest_grid(size: tuple[int, int], side: int, candidates: tuple[Grid, ...]) -> Grid:
    """The grid whose shape is closest to an image's.

    Of equally close ones it is the last whose half is smaller than the image.

    Args:
        size: width and height of the image in pixels.
        side: side of a tile in pixels.
        candidates: the result of `grids`.
    """
    width, height = size
    best, smallest = (1, 1), float("inf")
    for columns, rows in candidates:
        distance = abs(width / height - columns / rows)
        is_covered = width * height > 0.5 * side * side * columns * rows
        if distance < smallest or (distance == smallest and is_covered):
            best, smallest = (columns, rows), distance
    return best


@dataclass(frozen=True)
class Tiler:
    """The image processor of a checkpoint. Its fields are keys of config.json.

    Attributes:
        image_size: side of a tile in pixels.
        min_dynamic_patch: least number of tiles of an image.
        max_dynamic_patch: largest number of tiles of an image, without its thumbnail.
        dynamic_image_size: True if an image is cut; False if it is one tile.
        use_thumbnail: True if the whole image, as one more tile, follows the tiles of a cut image.
    """

    image_size: int
    min_dynamic_patch: int
    max_dynamic_patch: int
    dynamic_image_size: bool
    use_thumbnail: bool

    @staticmethod
    def of(config: Mapping[str, Any]) -> Tiler:
        """The image processor that a config.json describes."""
        return Tiler(
            config["vision_config"]["image_size"],
            config["min_dynamic_patch"],
            config["max_dynamic_patch"],
            config["dynamic_image_size"],
            config["use_thumbnail"],
        )

    @property
    def size(self) -> dict[str, int]:
        """Height and width of a tile, as Transformers' image processors have them."""
        return {"height": self.image_size, "width": self.image_size}

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """The tiles of an image row by row, behind them its thumbnail.

        Returns:
            Shape (tiles, 3, image_size, image_size), float32, normalised.
        """
        import torch

        crops = self._crops(image.convert("RGB"))
        levels = torch.stack([torch.from_numpy(np.array(crop)).permute(2, 0, 1) for crop in crops])
        mean, std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
        return (levels.float() / 255 - mean) / std

    def frame(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """The one tile of a frame of a clip.

        Args:
            pixels: shape (height, width, 3), RGB.

        Returns:
            Shape (1, 3, image_size, image_size), float32, normalised.
        """
        from PIL import Image

        return dataclasses.replace(self, dynamic_image_size=False)(Image.fromarray(pixels))

    def _crops(self, image: Image.Image) -> list[Image.Image]:
        from PIL.Image import Resampling

        side = self.image_size
        least, most = (self.min_dynamic_patch, self.max_dynamic_patch)
        candidates = grids(least, most) if self.dynamic_image_size else ((1, 1),)
        columns, rows = closest_grid(image.size, side, candidates)
        resized = image.resize((columns * side, rows * side), Resampling.BICUBIC)
        crops = [
            resized.crop((x * side, y * side, (x + 1) * side, (y + 1) * side))
            for y in range(rows)
            for x in range(columns)
        ]
        if self.use_thumbnail and len(crops) > 1:
            crops.append(image.resize((side, side), Resampling.BICUBIC))
        return crops
