"""An endpoint that already runs, on a device nobody here can see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..spec.model import ModelSpec
from .base import Cardless


class Remote(Cardless):
    """Judges a running endpoint; what it runs on is unknown and is reported as unknown."""

    name = "endpoint"
    torch_device = None
    serves_float32 = False

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def label(self) -> str:
        """The address."""
        return f"{self._url}, on a device that cannot be seen from here"

    def unavailable_reason(self) -> str | None:
        """None: an endpoint that does not answer is an error of the run, not a skip."""
        return None

    def device(self) -> str:
        """The address."""
        return f"unknown, behind {self._url}"

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:  # noqa: ARG002
        """None of ours."""
        return {}

    def environment(self, model: ModelSpec) -> dict[str, str]:  # noqa: ARG002
        """None of ours."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """Unknown."""
        return {}
