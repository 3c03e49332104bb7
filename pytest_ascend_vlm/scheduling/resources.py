"""Ray's names of the cards of each platform."""

from __future__ import annotations

from collections.abc import Mapping

_CARDS: Mapping[str, str] = {"npu": "NPU", "cuda": "GPU"}

CPU = "CPU"


def resource_of(platform: str) -> str:
    """Ray's resource that a server of a platform takes; a server without cards takes a CPU."""
    return _CARDS.get(platform, CPU)


def requested(resource: str, count: int) -> dict[str, object]:
    """The options of a task that needs so much of a resource; without any, it takes a CPU."""
    if not count or resource == CPU:
        return {"num_cpus": count or 1}
    if resource == "GPU":
        return {"num_cpus": 0, "num_gpus": count}
    return {"num_cpus": 0, "resources": {resource: count}}
