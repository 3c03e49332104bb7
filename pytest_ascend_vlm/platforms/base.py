"""What the suite needs to know about a platform."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any, Protocol

from ..spec import ModelSpec


class Platform(Protocol):
    """A kind of device that a vLLM server can run on."""

    name: str

    def unavailable(self) -> str | None:
        """Why no server can run here, or None where one can."""

    def device(self) -> str:
        """The device, in words, as the receipt names it."""

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's serve arguments as this platform can take them."""

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The environment of the server on top of the caller's."""

    def versions(self) -> Mapping[str, str]:
        """Versions of what the platform's verdicts depend on; absent ones are left out."""


def installed_versions(*distributions: str) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def with_declared_limits(model: ModelSpec) -> dict[str, Any]:
    """The model's serve arguments, with every modality it does not support switched off."""
    from ..spec import Capability

    serve = dict(model.serve)
    limits = dict(serve.get("limit_mm_per_prompt", {}))
    for capability in (Capability.IMAGE, Capability.VIDEO):
        if capability in model.unsupported:
            limits.setdefault(capability.value, 0)
    if limits:
        serve["limit_mm_per_prompt"] = limits
    return serve
