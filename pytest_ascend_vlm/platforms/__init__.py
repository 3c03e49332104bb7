"""The platforms that vLLM can serve a model on, and their settings.

A new platform is one module and one entry of `PLATFORMS`. Another distribution adds a platform with
an entry point of the group `ascend_vlm.platforms`; its name is the value of `--vlm-platform`.
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
"""Name -> module and class, for the platforms of this package."""

_GROUP = "ascend_vlm.platforms"


def select_platform(name: str) -> Platform:
    """Creates the platform of a name.

    Raises:
        ConfigurationError: there is no platform of that name.
    """
    if name in PLATFORMS:
        module, _, cls = PLATFORMS[name].partition(":")
        own: Platform = getattr(import_module(module, __name__), cls)()
        return own
    other: Platform = _of_others()[require_platform(name)].load()()
    return other


def require_platform(name: str) -> str:
    """The name of an existing platform; the platform itself is not imported.

    Raises:
        ConfigurationError: there is none.
    """
    if not is_platform(name):
        known = ", ".join(platform_names())
        raise ConfigurationError(
            f"--vlm-platform={name}: there is no such platform; use one of {known}"
        )
    return name


def is_platform(name: str) -> bool:
    """True if there is a platform of that name."""
    # The entry points of all installed distributions are read only for a name that is not ours.
    return name in PLATFORMS or name in _of_others()


def platform_names() -> tuple[str, ...]:
    """The names of all platforms, including those of other distributions."""
    return (*PLATFORMS, *sorted(_of_others()))


def _of_others() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=_GROUP)}
