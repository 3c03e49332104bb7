"""An endpoint that already runs, on a device that this host cannot see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..spec.model import ModelSpec
from .base import Cardless


class Remote(Cardless):
    """A running endpoint.

    Nothing about its device and its versions is verified. Both are reported as stated by someone,
    or as unknown.

    Attributes:
        server_version: the version of vLLM that the server states, or None.
    """

    name = "endpoint"
    torch_device = None
    serves_float32 = False
    structured_outputs_problem = None
    structured_crowd_problem = None
    preemption_problem = None

    def __init__(self, url: str, stated_device: str | None = None) -> None:
        """Contacts nothing.

        Args:
            url: the server's URL.
            stated_device: the device as the caller states it, or None.
        """
        self.server_version: str | None = None
        self._url = url
        self._stated_device = stated_device

    @property
    def label(self) -> str:
        """The URL, for the closing line."""
        if self._stated_device is None:
            return f"{self._url}, on a device that cannot be seen from here"
        return f"{self._url}, on a device that the caller states as {self._stated_device}"

    def unavailable_reason(self) -> str | None:
        """None: an endpoint that does not answer is an error, not a reason to skip."""
        return None

    def device(self) -> str:
        """The device as the caller states it, or "unknown"; with the URL."""
        if self._stated_device is None:
            return f"unknown, behind {self._url}"
        return f"{self._stated_device} (stated by the caller, not verified), behind {self._url}"

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:  # noqa: ARG002
        """Empty: the suite does not start the server."""
        return {}

    def environment(self, model: ModelSpec) -> dict[str, str]:  # noqa: ARG002
        """Empty: the suite does not start the server."""
        return {}

    def versions(self) -> Mapping[str, str]:
        """The version of vLLM that the server states; empty if it states none."""
        if self.server_version is None:
            return {}
        return {"vllm": f"{self.server_version} (stated by the server, not verified)"}
