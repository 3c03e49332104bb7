"""An endpoint that already runs, on a device nobody here can see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from ..spec import ModelSpec
from .base import Place, nowhere


class Remote:
    """Judges a running endpoint; what it runs on is unknown and is reported as unknown."""

    name = "endpoint"
    simulated = False

    def __init__(self, url: str) -> None:
        self._url = url

    def unavailable(self) -> str | None:
        """None: whether the endpoint answers is for the criteria to say."""
        return None

    def misconfigured(self) -> str | None:
        """None: how it was set up cannot be seen from here."""
        return None

    def visible_cards(self) -> int | None:
        """None: as for `usable_cards`."""
        return None

    def usable_cards(self) -> int | None:
        """None: no server is started."""
        return None

    def place(
        self,
        model: ModelSpec,  # noqa: ARG002
        say: Callable[[str], None],  # noqa: ARG002
    ) -> AbstractContextManager[Place]:
        """No place of ours."""
        return nowhere()

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
