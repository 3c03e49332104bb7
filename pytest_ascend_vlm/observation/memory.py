"""The memory that an engine reports for itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineMemory:
    """An engine's own figures, of one card; None where it does not report one.

    Attributes:
        weights_gib: memory of the weights, in GiB.
        weights_seconds: duration of loading the weights.
        kv_cache_gib: memory of the KV cache, in GiB.
        kv_cache_tokens: number of tokens that the KV cache has room for.
    """

    weights_gib: float | None = None
    weights_seconds: float | None = None
    kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
