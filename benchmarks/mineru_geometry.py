"""MinerU2.5-1.2B's geometry: its vision tower with random weights, and the document's pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cpu_rounds import Cost

ROOT = Path(__file__).parent.parent
TINY = ROOT / "fixtures" / "tiny" / "qwen2_vl"

Grid = tuple[int, int, int]
"""Number of patches in time, height and width."""

THREADS = 4  # the document's, or as many cores as there are
LAYERS = 32
DECODER_LAYERS = 24
VISION = {
    "depth": LAYERS, "embed_dim": 1280, "hidden_size": 896, "mlp_ratio": 4, "num_heads": 16,
    "in_channels": 3, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
DECODER = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": DECODER_LAYERS,
    "num_attention_heads": 14, "num_key_value_heads": 2, "rope_theta": 1e6,
    "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
}  # fmt: skip

LONGEST_SIDE = 768
A4_200_DPI = (1654, 2339)


def threads_here() -> int:
    """The document's four threads, or the number of cores if it is smaller."""
    from pytest_ascend_vlm.platforms.cores import physical_cores

    return min(THREADS, physical_cores())


def cpu_flags() -> set[str]:
    """The instruction sets of this CPU, as Linux names them."""
    flags = Path("/proc/cpuinfo")
    return set(flags.read_text("utf-8").split()) if flags.is_file() else set()


def bf16_instructions() -> bool:
    """Whether this CPU multiplies bf16 in hardware."""
    return not cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def grid_of(size: tuple[int, int], max_pixels: int = 2**31) -> Grid:
    """The grid of Qwen2-VL's image processor for an image of (width, height)."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    height, width = smart_resize(size[1], size[0], factor=28, max_pixels=max_pixels)
    return 1, height // 14, width // 14


def bounded(size: tuple[int, int], longest: int = LONGEST_SIDE) -> tuple[int, int]:
    """The size after the document's resize_image."""
    scale = min(1.0, longest / max(size))
    return int(size[0] * scale), int(size[1] * scale)


def new_tower(layers: int, attention: str) -> Any:
    """A vision tower of the true width with random weights, float32."""
    import torch
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

    torch.manual_seed(0)
    config = Qwen2VLVisionConfig(**{**VISION, "depth": layers})
    config._attn_implementation = attention
    return Qwen2VisionTransformerPretrainedModel(config).eval()


def some_pixels(grid: Grid) -> Any:
    """Pixel values of an image that is noise."""
    shape = (math.prod(grid), 3 * 2 * 14**2)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def in_torch(tower: Any, pixels: Any, grid: Grid) -> Any:
    """The output of a tower for an image, float32."""
    import torch

    with torch.inference_mode():
        values = torch.from_numpy(pixels).to(tower.dtype)
        return tower(values, grid_thw=torch.tensor([grid])).pooler_output.float().numpy()


class LayerTimer:
    """Times a model that has a few of its layers, and counts the missing ones as equal to them."""

    def __init__(self, built: Sequence[Any], layers: int) -> None:
        """Wraps the layers that were built.

        Args:
            built: the model's own list of layers.
            layers: how many the true model has.
        """
        self._missing = layers / len(built) - 1
        self._built = Cost(0.0, 0.0)
        for layer in built:
            layer.forward = self._timed(layer.forward)

    def cost(self, action: Callable[[], object]) -> Cost:
        """Cost of an action that runs the model, as if all layers had been built."""
        self._built = Cost(0.0, 0.0)
        whole = Cost.of(action)
        return whole.plus(self._missing, self._built)

    def _timed(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            outputs: list[Any] = []
            cost = Cost.of(lambda: outputs.append(forward(*arguments, **named)))
            self._built = self._built.plus(1, cost)
            return outputs[0]

        return timed


class TowerTimer:
    """Times a tower of a few layers, and extrapolates to all layers."""

    def __init__(self, tower: Any) -> None:
        self._tower = tower
        self._layers = LayerTimer(tower.blocks, LAYERS)

    def cost(self, grid: Grid) -> Cost:
        """Cost of all layers, the patch embedding and the merger."""
        pixels = some_pixels(grid)
        return self._layers.cost(lambda: in_torch(self._tower, pixels, grid))
