"""Where the served model runs, and what vLLM is told for that place.

A new platform is one module and one entry of `PLATFORMS`. A platform of another distribution is an
entry point of the group `ascend_vlm.platforms`, named as `--vlm-platform` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .base import Platform

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
    other: Platform = _of_others()[require_platform(name)].load()()
    return other


def require_platform(name: str) -> str:
    """The name, if there is a platform of it; nothing of it is imported.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in PLATFORMS and name not in platform_names():
        known = ", ".join(platform_names())
        raise ConfigurationError(f"--vlm-platform={name} is no platform; there are {known}")
    return name


def platform_names() -> tuple[str, ...]:
    """The names of all platforms, those of other distributions included."""
    return (*PLATFORMS, *sorted(_of_others()))


def _of_others() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=_GROUP)}
