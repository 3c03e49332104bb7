"""What the suite needs to know about a platform."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Protocol

from ..spec.model import ModelSpec


def _cannot_tell() -> None:
    return None


@dataclass(frozen=True)
class Place:
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
    def torch_device(self) -> str | None:
        """The device as torch names it; None where it cannot be reached from here."""

    @property
    def serves_float32(self) -> bool:
        """Whether vLLM serves float32 on it."""

    @property
    def simulated(self) -> bool:
        """Whether its devices are made up, so that nothing measured on them counts."""

    def unavailable(self) -> str | None:
        """Why no server can run here, or None where one can."""

    def misconfigured(self) -> str | None:
        """What is wrong with a host that could serve: an error, where `unavailable` is a skip."""

    def device(self) -> str:
        """The device, in words, as the receipt names it."""

    def visible_cards(self) -> int | None:
        """How many cards the caller has, whatever their state; None where cards do not count."""

    def usable_cards(self) -> int | None:
        """How many servers of one card can run side by side; None where cards do not count."""

    def place(self, model: ModelSpec, say: Callable[[str], None]) -> AbstractContextManager[Place]:
        """Where a server of a model runs; its cards are nobody else's meanwhile.

        Args:
            model: the model.
            say: told what is waited for.

        Raises:
            ConfigurationError: there are not enough cards, whoever returns theirs.
        """

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's serve arguments as this platform can take them."""

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The environment of the server on top of the caller's."""

    def versions(self) -> Mapping[str, str]:
        """Versions of what the platform's verdicts depend on; absent ones are left out."""


# Read by CANN, torch-npu, HCCL, ATB and vLLM-Ascend alone.
_ASCEND_ONLY = (
    "ACL_",
    "ASCEND_",
    "ATB_",
    "CLOSE_MATMUL_K_SHIFT",
    "COMBINED_ENABLE",
    "CPU_AFFINITY_CONF",
    "HCCL_",
    "HCCN_",
    "INF_NAN_MODE_",
    "LCCL_",
    "MULTI_STREAM_MEMORY_REUSE",
    "NPU_",
    "PYTORCH_NPU_",
    "TASK_QUEUE_ENABLE",
    "VLLM_ASCEND_",
)


def without_ascend_only(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that something else than an Ascend NPU's software reads."""
    return {name: value for name, value in env.items() if not name.startswith(_ASCEND_ONLY)}


class Cardless:
    """What all platforms have in common whose servers need no card."""

    simulated = False

    def misconfigured(self) -> str | None:
        """None: without cards nothing on this host can be set wrongly."""
        return None

    def visible_cards(self) -> int | None:
        """None: as for `usable_cards`."""
        return None

    def usable_cards(self) -> int | None:
        """None: nothing here is counted in cards."""
        return None

    def place(
        self,
        model: ModelSpec,  # noqa: ARG002
        say: Callable[[str], None],  # noqa: ARG002
    ) -> AbstractContextManager[Place]:
        """Anywhere: a server need not have it to itself."""
        return contextlib.nullcontext(Place())


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
    from ..spec.model import Capability

    serve = dict(model.serve)
    limits = dict(serve.get("limit_mm_per_prompt", {}))
    for capability in (Capability.IMAGE, Capability.VIDEO):
        if capability in model.unsupported:
            limits.setdefault(capability.value, 0)
    if limits:
        serve["limit_mm_per_prompt"] = limits
    return serve
