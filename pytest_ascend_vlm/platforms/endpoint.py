"""An endpoint that already runs, on a device that this host cannot see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..spec.model import ModelSpec
from .base import Cardless


class Remote(Cardless):
    """A running endpoint; its device and versions are unknown and are reported as unknown."""

    name = "endpoint"
    torch_device = None
    serves_float32 = False

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def label(self) -> str:
        """The URL, for the closing line."""
        return f"{self._url}, on a device that cannot be seen from here"

    def unavailable_reason(self) -> str | None:
        """None: an endpoint that does not answer is an error, not a reason to skip."""
        return None

    def device(self) -> str:
        """The text "unknown", with the URL."""
        return f"unknown, behind {self._url}"

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:  # noqa: ARG002
        """Empty: the suite does not start the server."""
        return {}

    def environment(self, model: ModelSpec) -> dict[str, str]:  # noqa: ARG002
        """Empty: the suite does not start the server."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """Empty: the versions are unknown."""
        return {}
