"""What the suite needs to know about a platform."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..progress import ProgressCallback
from ..spec.model import ModelSpec


def _cannot_tell() -> None:
    return None


@dataclass(frozen=True)
class Allocation:
    """Where one server runs.

    Attributes:
        cards: ids of its cards; empty where there are none.
        env: environment that confines a server to them.
        memory_used_mib: device memory in use on them now, all processes together; None where that
            cannot be told.
    """

    cards: tuple[int, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    memory_used_mib: Callable[[], float | None] = _cannot_tell


class Platform(Protocol):
    """A kind of device that a vLLM server can run on."""

    name: str

    @property
    def label(self) -> str:
        """Where models are served, in words that cannot be mistaken for an NPU."""

    @property
    def torch_device(self) -> str | None:
        """The device as torch names it; None where it cannot be reached from here."""

    @property
    def serves_float32(self) -> bool:
        """Whether vLLM serves float32 on it."""

    @property
    def simulated(self) -> bool:
        """Whether its devices are made up, so that nothing measured on them counts."""

    def prepare_torch(self) -> None:
        """Makes torch know the device, before a model is put on it.

        Raises:
            ConfigurationError: torch lacks what it needs for that.
        """

    def unavailable_reason(self) -> str | None:
        """Why no server can run here, or None where one can. A reason skips."""

    def misconfigured_reason(self) -> str | None:
        """What is wrong with a host that could serve, or None. A reason is an error."""

    def device(self) -> str:
        """The device, in words, as the receipt names it."""

    def visible_cards(self) -> int | None:
        """How many cards the caller has, whatever their state; None where cards do not count."""

    def usable_cards(self) -> int | None:
        """How many servers of one card can run side by side; None where cards do not count."""

    def allocate(
        self, model: ModelSpec, on_progress: ProgressCallback
    ) -> AbstractContextManager[Allocation]:
        """Leases devices for one model's server for the duration of the context.

        Args:
            model: the model.
            on_progress: told what is waited for.

        Raises:
            ConfigurationError: the host has too few cards, even counting those that are leased to
                other runs.
        """

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's serve arguments as this platform can take them."""

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The environment of the server on top of the caller's."""

    def versions(self) -> Mapping[str, str]:
        """Versions of what the platform's verdicts depend on; absent ones are left out."""


class Cardless:
    """What all platforms have in common whose servers need no card."""

    simulated = False

    def prepare_torch(self) -> None:
        """Nothing: torch knows the CPU."""

    def misconfigured_reason(self) -> str | None:
        """None: without cards nothing on this host can be set wrongly."""
        return None

    def visible_cards(self) -> int | None:
        """None: as for `usable_cards`."""
        return None

    def usable_cards(self) -> int | None:
        """None: nothing here is counted in cards."""
        return None

    def allocate(
        self,
        model: ModelSpec,  # noqa: ARG002
        on_progress: ProgressCallback,  # noqa: ARG002
    ) -> AbstractContextManager[Allocation]:
        """Anywhere: a server need not have it to itself."""
        return contextlib.nullcontext(Allocation())


def with_declared_limits(model: ModelSpec) -> dict[str, Any]:
    """The model's serve arguments, with every modality it does not support switched off."""
    from ..spec.case import Capability

    serve = dict(model.serve)
    limits = dict(serve.get("limit_mm_per_prompt", {}))
    for capability in (Capability.IMAGE, Capability.VIDEO):
        if capability in model.unsupported:
            limits.setdefault(capability.value, 0)
    if limits:
        serve["limit_mm_per_prompt"] = limits
    return serve
