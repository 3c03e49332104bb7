"""What a server took from its caches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CacheUse:
    """A server's cache counters for some requests.

    Attributes:
        image_queries: number of images that were looked up in the multimodal cache.
        image_hits: number of images that were found there.
        prompt_queries: number of prompt tokens that were looked up in the prefix cache.
        prompt_hits: number of prompt tokens that were found there.
    """

    image_queries: float
    image_hits: float
    prompt_queries: float
    prompt_hits: float
