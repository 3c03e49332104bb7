"""The interface of a platform, and the parts that platforms share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..progress import ProgressCallback
from ..spec.model import ModelSpec


def _unknown() -> None:
    return None


@dataclass(frozen=True)
class Allocation:
    """The devices of one server.

    Attributes:
        cards: ids of the cards; empty on a platform without cards.
        env: environment variables that confine the server to these cards, or to its threads.
        memory_used_mib: returns the device memory in use on these cards now by all processes, in
            MiB, or None if it is unknown.
    """

    cards: tuple[int, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    memory_used_mib: Callable[[], float | None] = _unknown


class Platform(Protocol):
    """A kind of device that a vLLM server can run on."""

    name: str

    @property
    def label(self) -> str:
        """The platform for the closing line; no other platform may be mistaken for an NPU."""

    @property
    def torch_device(self) -> str | None:
        """The name of the device in torch; None if this host cannot access the device."""

    @property
    def serves_float32(self) -> bool:
        """True if vLLM can serve float32 on this platform."""

    @property
    def structured_outputs_problem(self) -> str | None:
        """Reason why a request for a structured output would end the engine here, or None."""

    @property
    def structured_crowd_problem(self) -> str | None:
        """Reason why structured outputs among other requests would end the engine here, or None."""

    @property
    def preemption_problem(self) -> str | None:
        """Reason why an engine with a full KV cache would end here, or None."""

    @property
    def simulated(self) -> bool:
        """True if the devices are simulated, so that measurements on them do not count."""

    def prepare_torch(self) -> None:
        """Registers the device with torch, before a model is loaded onto it.

        Raises:
            ConfigurationError: torch lacks a package that the device needs.
        """

    def unavailable_reason(self) -> str | None:
        """Reason why no server can run on this host, or None. Tests are then skipped."""

    def misconfigured_reason(self) -> str | None:
        """Reason why the host is configured wrongly, or None. Tests then end with an error."""

    def device(self) -> str:
        """The number and names of the devices, for the receipt."""

    def device_memory_mib(self) -> int | None:
        """Size of the memory of one card, in MiB; None if it is unknown or there is no card."""

    def visible_cards(self) -> int | None:
        """The number of visible cards, busy ones included; None on a platform without cards."""

    def usable_cards(self) -> int | None:
        """The number of visible cards that are idle; None on a platform without cards."""

    def allocate(
        self, model: ModelSpec, on_progress: ProgressCallback
    ) -> AbstractContextManager[Allocation]:
        """Leases devices for one model's server for the duration of the context.

        Args:
            model: the model.
            on_progress: called with what the lease is waiting for.

        Raises:
            ConfigurationError: the host has too few cards, even counting those leased to other
                runs.
        """

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's serve arguments, adapted to this platform."""

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """Environment variables that the server gets in addition to the caller's."""

    def versions(self) -> Mapping[str, str]:
        """Package -> version, for installed packages that verdicts on this platform depend on."""


class Cardless:
    """Base of the platforms whose servers need no card."""

    simulated = False

    def prepare_torch(self) -> None:
        """Does nothing: torch always supports the CPU."""

    def misconfigured_reason(self) -> str | None:
        """None: only the configuration of cards is checked."""
        return None

    def device_memory_mib(self) -> int | None:
        """None: this platform has no cards."""
        return None

    def visible_cards(self) -> int | None:
        """None: this platform has no cards."""
        return None

    def usable_cards(self) -> int | None:
        """None: this platform has no cards."""
        return None

    def allocate(
        self,
        model: ModelSpec,  # noqa: ARG002
        on_progress: ProgressCallback,  # noqa: ARG002
    ) -> AbstractContextManager[Allocation]:
        """An empty allocation: servers may share the host."""
        return contextlib.nullcontext(Allocation())


def with_declared_limits(model: ModelSpec) -> dict[str, Any]:
    """The model's serve arguments, with every modality that it does not support disabled."""
    from ..spec.case import Capability

    serve = dict(model.serve)
    limits = dict(serve.get("limit_mm_per_prompt", {}))
    for capability in (Capability.IMAGE, Capability.VIDEO):
        if capability in model.unsupported:
            limits.setdefault(capability.value, 0)
    if limits:
        serve["limit_mm_per_prompt"] = limits
    return serve
