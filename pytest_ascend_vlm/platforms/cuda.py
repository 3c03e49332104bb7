"""NVIDIA GPUs: a reference for those who have one. What it shows says nothing about an NPU."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..errors import ConfigurationError
from ..progress import ProgressCallback
from ..spec.model import ModelSpec
from ..versions import installed_versions
from .ascend_only import without_ascend_only
from .base import Allocation, with_declared_limits
from .cards import Card, CardProcess, cards_text
from .pool import Pool
from .tool import Tool


class NvidiaSmiError(ConfigurationError):
    """nvidia-smi gave no list of GPUs; the message says what it gave."""


_NVIDIA_SMI = Tool("nvidia-smi", NvidiaSmiError)


def read_gpus() -> tuple[Card, ...]:
    """The GPUs of this host.

    Raises:
        NvidiaSmiError: nvidia-smi is not there, hangs, or lists no GPU.
    """
    gpus = _query("gpu", "uuid,memory.used,memory.total,name")
    processes = _query("compute-apps", "gpu_uuid,pid,used_memory,name")
    return parse_nvidia_smi(gpus, processes)


def parse_nvidia_smi(gpus: str, processes: str) -> tuple[Card, ...]:
    """The GPUs in the answers to both queries; the name is last, as it may hold commas.

    Raises:
        NvidiaSmiError: there is no GPU in them.
    """
    holders = defaultdict(list)
    for uuid, pid, memory, name in _rows(processes):
        holders[uuid].append(CardProcess(_number(pid) or 0, name, _number(memory)))
    cards = tuple(
        Card(index, index, 0, name, "OK", _number(used) or 0, _number(total) or 0)
        for index, (_, used, total, name) in enumerate(_rows(gpus))
    )
    if not cards:
        raise NvidiaSmiError(f"nvidia-smi lists no GPU but {' '.join(gpus.split())[:200]!r}.")
    uuids = [uuid for uuid, *_ in _rows(gpus)]
    return tuple(
        replace(card, processes=tuple(holders[uuid]))
        for card, uuid in zip(cards, uuids, strict=True)
    )


POOL = Pool("cuda", "CUDA_VISIBLE_DEVICES", ascending=False, read=read_gpus)


class Cuda:
    """Runs servers on this host's NVIDIA GPUs."""

    name = "cuda"
    label = "a CUDA GPU, not an NPU"
    torch_device = "cuda"
    serves_float32 = True
    simulated = False

    def prepare_torch(self) -> None:
        """Nothing: a torch with CUDA knows the device."""

    def unavailable_reason(self) -> str | None:
        """Why no server can run here, or None."""
        if importlib.util.find_spec("vllm") is None:
            return "vLLM is not installed: pip install vllm"
        try:
            read_gpus()
        except NvidiaSmiError as error:
            return f"there is no NVIDIA GPU: {error}"
        return None

    def misconfigured_reason(self) -> str | None:
        """Visible ids that do not exist; or None."""
        return POOL.visible_problem()

    def device(self) -> str:
        """The GPUs by name and number."""
        try:
            return cards_text(read_gpus())
        except NvidiaSmiError as error:
            return f"none: {error}"

    def visible_cards(self) -> int | None:
        """How many cards the caller's environment leaves visible."""
        return POOL.count()

    def usable_cards(self) -> int | None:
        """How many visible GPUs a server can be started on now."""
        return POOL.usable()

    @contextmanager
    def allocate(self, model: ModelSpec, on_progress: ProgressCallback) -> Iterator[Allocation]:
        """GPUs for a server of a model, leased."""
        with POOL.allocate(model.devices, on_progress) as allocation:
            # CUDA counts the fastest first by default, nvidia-smi by bus.
            yield replace(allocation, env={**allocation.env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's arguments without vLLM-Ascend's own."""
        serve = with_declared_limits(model)
        return {name: value for name, value in serve.items() if name != "additional_config"}

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The model's environment without what only Ascend reads."""
        return without_ascend_only(model.env)

    def versions(self) -> Mapping[str, str]:
        """Versions of vLLM, torch and transformers."""
        return installed_versions("vllm", "torch", "transformers")


def _query(what: str, fields: str) -> str:
    done = _NVIDIA_SMI.ask(f"--query-{what}={fields}", "--format=csv,noheader,nounits")
    return done.stdout or done.stderr


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",", 3)]
        if len(cells) == 4 and cells[0].startswith("GPU-"):
            yield cells


def _number(text: str) -> int | None:
    """A number of MiB, None for "[N/A]"."""
    return int(text) if text.isascii() and text.isdigit() else None
