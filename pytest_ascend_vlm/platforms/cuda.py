"""NVIDIA GPUs, for comparison with the same criteria. The results are not NPU results."""

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
from .cards import Card, CardProcess, cards_text, memory_of_one
from .pool import Pool
from .tool import Tool


class NvidiaSmiError(ConfigurationError):
    """nvidia-smi printed no list of GPUs; the message quotes its output."""


_NVIDIA_SMI = Tool("nvidia-smi", NvidiaSmiError)


def read_gpus() -> tuple[Card, ...]:
    """The GPUs of this host.

    Raises:
        NvidiaSmiError: nvidia-smi is missing, hangs, or lists no GPU.
    """
    gpus = _query("gpu", "uuid,memory.used,memory.total,name")
    processes = _query("compute-apps", "gpu_uuid,pid,used_memory,name")
    return parse_nvidia_smi(gpus, processes)


def parse_nvidia_smi(gpus: str, processes: str) -> tuple[Card, ...]:
    """Parses the output of both queries; the name is the last field, because it may contain commas.

    Raises:
        NvidiaSmiError: the output lists no GPU.
    """
    holders = defaultdict(list)
    for uuid, pid, memory, name in _rows(processes):
        holders[uuid].append(CardProcess(_number(pid) or 0, name, _number(memory)))
    cards = tuple(
        Card(index, index, 0, name, "OK", _number(used) or 0, _number(total) or 0)
        for index, (_, used, total, name) in enumerate(_rows(gpus))
    )
    if not cards:
        raise NvidiaSmiError(
            f"nvidia-smi lists no GPU; it printed {' '.join(gpus.split())[:200]!r}."
        )
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
    structured_outputs_problem = None
    structured_crowd_problem = None
    preemption_problem = None
    simulated = False

    def prepare_torch(self) -> None:
        """Does nothing: a torch built with CUDA supports the device."""

    def unavailable_reason(self) -> str | None:
        """Reason why no server can run here, or None."""
        if importlib.util.find_spec("vllm") is None:
            return "vLLM is not installed: pip install vllm"
        try:
            read_gpus()
        except NvidiaSmiError as error:
            return f"there is no NVIDIA GPU: {error}"
        return None

    def misconfigured_reason(self) -> str | None:
        """Reason why CUDA_VISIBLE_DEVICES is wrong, or None."""
        return POOL.visible_problem()

    def device(self) -> str:
        """The number and names of the GPUs."""
        try:
            return cards_text(read_gpus())
        except NvidiaSmiError as error:
            return f"none: {error}"

    def device_memory_mib(self) -> int | None:
        """Size of the memory of one card, in MiB; None if it is unknown."""
        try:
            return memory_of_one(read_gpus())
        except NvidiaSmiError:
            return None

    def visible_cards(self) -> int | None:
        """The number of GPUs that CUDA_VISIBLE_DEVICES leaves visible."""
        return POOL.count()

    def usable_cards(self) -> int | None:
        """The number of visible GPUs that a server can be started on now."""
        return POOL.usable()

    @contextmanager
    def allocate(self, model: ModelSpec, on_progress: ProgressCallback) -> Iterator[Allocation]:
        """Leases GPUs for a server of a model for the duration of the context."""
        with POOL.allocate(model.devices, on_progress) as allocation:
            # By default CUDA numbers the fastest GPU 0; nvidia-smi numbers by PCI bus.
            yield replace(allocation, env={**allocation.env, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's arguments without those that only vLLM-Ascend reads."""
        serve = with_declared_limits(model)
        return {name: value for name, value in serve.items() if name != "additional_config"}

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The model's environment without the variables that only Ascend software reads."""
        return without_ascend_only(model.env)

    def versions(self) -> Mapping[str, str]:
        """Versions of vLLM, torch and transformers."""
        return installed_versions("vllm", "torch", "transformers")


def _query(subject: str, fields: str) -> str:
    done = _NVIDIA_SMI.ask(f"--query-{subject}={fields}", "--format=csv,noheader,nounits")
    return done.stdout or done.stderr


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",", 3)]
        if len(cells) == 4 and cells[0].startswith("GPU-"):
            yield cells


def _number(text: str) -> int | None:
    """The number in a cell; None for "[N/A]"."""
    return int(text) if text.isascii() and text.isdigit() else None
