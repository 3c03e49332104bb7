"""Ascend NPUs under vLLM-Ascend."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..spec import ModelSpec
from .base import installed_versions, with_declared_limits
from .npu_smi import NpuSmiError, read_cards


class Ascend:
    """Runs servers on this host's NPUs."""

    name = "npu"

    def unavailable(self) -> str | None:
        """Why no server can run here, or None."""
        if not _device_nodes():
            return (
                "there is no Ascend NPU (no /dev/davinci* device; inside a container pass "
                "--device /dev/davinci0 and the driver's directories)"
            )
        if importlib.util.find_spec("vllm_ascend") is None:
            return "vLLM-Ascend is not installed; use its container or pip install vllm-ascend"
        try:
            read_cards()
        except NpuSmiError as error:
            return str(error)
        return None

    def device(self) -> str:
        """The cards by name and number, as npu-smi tells them."""
        try:
            names = Counter(card.name or "unnamed card" for card in read_cards())
        except NpuSmiError as error:
            return f"none: {error}"
        return ", ".join(f"{count} x {name}" for name, count in names.items())

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's arguments, as its document has them."""
        return with_declared_limits(model)

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The model's environment, as its document has it."""
        return dict(model.env)

    def versions(self) -> Mapping[str, str]:
        """Versions of vLLM, vLLM-Ascend, torch, torch-npu and transformers."""
        return installed_versions("vllm", "vllm-ascend", "torch", "torch-npu", "transformers")


def _device_nodes() -> list[Path]:
    return sorted(Path("/dev").glob("davinci[0-9]*"))
