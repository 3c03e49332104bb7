"""Where the served model runs, and what vLLM is told for that place.

A new platform is one module and one entry of `PLATFORMS`. A platform of another distribution is an
entry point of the group `ascend_vlm.platforms`, named as `--vlm-platform` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from ..errors import ConfigurationError
from .base import Allocation, Platform

__all__ = ["PLATFORMS", "Allocation", "Platform", "platform_names", "select_platform"]

PLATFORMS: Mapping[str, str] = {
    "npu": ".ascend:Ascend",
    "cpu": ".cpu:Cpu",
    "cuda": ".cuda:Cuda",
}
"""Name -> module and class of each platform of this package."""

_GROUP = "ascend_vlm.platforms"


def select_platform(name: str) -> Platform:
    """The platform of a name.

    Raises:
        ConfigurationError: there is none.
    """
    if name in PLATFORMS:
        module, _, cls = PLATFORMS[name].partition(":")
        own: Platform = getattr(import_module(module, __name__), cls)()
        return own
    others = _of_others()
    if name not in others:
        known = ", ".join(platform_names())
        raise ConfigurationError(f"--vlm-platform={name} is no platform; there are {known}")
    other: Platform = others[name].load()()
    return other


def platform_names() -> tuple[str, ...]:
    """The names of all platforms, those of other distributions included."""
    return (*PLATFORMS, *sorted(_of_others()))


def _of_others() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=_GROUP)}
