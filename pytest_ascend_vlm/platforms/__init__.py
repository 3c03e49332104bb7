"""Where the served model runs, and what that place needs said to vLLM."""

from __future__ import annotations

from .base import Platform

__all__ = ["PLATFORMS", "Platform", "select_platform"]

PLATFORMS = ("npu", "cpu")


def select_platform(name: str) -> Platform:
    """The platform of a name in `PLATFORMS`."""
    from .ascend import Ascend
    from .cpu import Cpu

    return Ascend() if name == "npu" else Cpu()
