"""Where the served model runs, and what that place needs said to vLLM."""

from __future__ import annotations

from .base import Place, Platform

__all__ = ["PLATFORMS", "Place", "Platform", "select_platform"]

PLATFORMS = ("npu", "cpu", "cuda")


def select_platform(name: str) -> Platform:
    """The platform of a name in `PLATFORMS`."""
    from .ascend import Ascend
    from .cpu import Cpu
    from .cuda import Cuda

    platforms: dict[str, type[Platform]] = {"npu": Ascend, "cpu": Cpu, "cuda": Cuda}
    return platforms[name]()
