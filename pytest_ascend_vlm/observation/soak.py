"""What is seen of a server that answers questions about many different images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .answers import Completion
from .caches import CacheUse


@dataclass(frozen=True)
class Soak:
    """A server's memory after each of many images, and its answers before and after them.

    Attributes:
        images: number of images that were asked about, each different from all others.
        host: for each image, the host memory of the server's processes in MiB by their names;
            no processes if they are not visible.
        device_mib: for each image, the device memory in use in MiB; empty if it is unknown.
        first: case id -> the answer before the images.
        again: case id -> the answer to the same request after the images.
        cold: case id -> the answer after them to a cold request.
        again_caches: the server's cache counters for `again`; None if it has none.
        cold_caches: the same for `cold`.
    """

    images: int
    host: tuple[Mapping[str, float], ...]
    device_mib: tuple[float, ...]
    first: Mapping[str, Completion]
    again: Mapping[str, Completion]
    cold: Mapping[str, Completion]
    again_caches: CacheUse | None = None
    cold_caches: CacheUse | None = None
