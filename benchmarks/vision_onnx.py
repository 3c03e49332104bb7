"""The vision encoder of a checkpoint in ONNX Runtime, float32 on CPU.

For checkpoints whose vision tower takes pixel values and a grid, as Qwen2-VL's does (MinerU2.5).
An export is of one grid: rotary embeddings and the bounds of attention become constants of it, so
that what is left are matrix products, which any build of ONNX Runtime knows. Exports are kept in a
directory of the caller's, by the checkpoint's digest.

PyTorch exports by tracing (`dynamo=False`), because `torch.export` stops at the tower's
data-dependent split of attention; tracing also does without onnxscript.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_ascend_vlm.checkpoints.digest import weights_digest
from pytest_ascend_vlm.engines import torch_companions
from pytest_ascend_vlm.errors import ConfigurationError

Grid = tuple[int, int, int]
"""Patches in time, height and width, before neighbours are merged."""

_FILE = "vision.onnx"
_INPUT, _OUTPUT = "pixel_values", "image_embeds"
_OPSET = 17


class OnnxVision:
    """A checkpoint's vision encoder; sessions are kept, one for each grid."""

    def __init__(self, checkpoint: Path, cache: Path, *, threads: int) -> None:
        """Loads nothing yet.

        Args:
            checkpoint: its directory.
            cache: directory that keeps the exports.
            threads: number of threads that one operator is computed with.

        Raises:
            CheckpointError: the checkpoint has no weights.
            ConfigurationError: onnx or ONNX Runtime is not installed.
        """
        _require_onnx()
        self._checkpoint = checkpoint
        self._cache = cache / weights_digest(checkpoint)[:16]
        self._threads = threads
        self._sessions: dict[Grid, Any] = {}

    def encode(self, pixel_values: npt.NDArray[np.float32], grid: Grid) -> npt.NDArray[np.float32]:
        """What the language model gets of an image.

        Args:
            pixel_values: shape (patches, values of a patch), as the checkpoint's processor makes
                them.
            grid: of the image, `image_grid_thw` of the same processor.

        Returns:
            Shape (image tokens, width of the language model).

        Raises:
            ConfigurationError: Transformers cannot load the checkpoint, or it has another kind of
                vision tower.
        """
        if grid not in self._sessions:
            self._sessions[grid] = open_session(self._exported(grid), threads=self._threads)
        return run(self._sessions[grid], pixel_values)

    def _exported(self, grid: Grid) -> Path:
        path = self._cache / "x".join(map(str, grid)) / _FILE
        if not path.is_file():
            export(load_tower(self._checkpoint), grid, path.parent)
        return path


def load_tower(checkpoint: Path) -> Any:
    """A checkpoint's vision tower in PyTorch, float32, fused attention.

    Raises:
        ConfigurationError: it cannot be loaded, or there is none of this kind.
    """
    torch_companions.install()
    try:
        import torch
        import transformers

        model = transformers.AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="sdpa"
        )
        return model.model.visual.eval()
    except (ImportError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"no vision encoder can be exported of {checkpoint}: {error}. It has to be a complete "
            "checkpoint of the Qwen2-VL family, and PyTorch and Transformers are needed: "
            "pip install 'pytest-ascend-vlm[reference]'."
        ) from error


def export(tower: Any, grid: Grid, directory: Path) -> Path:
    """Writes a tower as `vision.onnx`, for one grid; the directory appears when it is complete.

    Args:
        tower: takes (pixel values, grid) and gives an output with a `pooler_output`.
        grid: the only one that the export is good for.
        directory: is made; what another process put there meanwhile is kept.

    Returns:
        The file; weights beyond 2 GiB, protobuf's limit, lie beside it.
    """
    _require_onnx()
    import torch

    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as name:
        draft = Path(name) / "complete"
        draft.mkdir()
        with torch.inference_mode(), _no_tracer_warnings():
            torch.onnx.export(
                _for_grid(tower, grid),
                (torch.zeros(grid[0] * grid[1] * grid[2], _patch_values(tower)),),
                str(draft / _FILE),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                opset_version=_OPSET,
                dynamo=False,
            )
        try:
            draft.replace(directory)
        except OSError:
            if not directory.is_dir():  # else someone was faster, with the same weights
                raise
    return directory / _FILE


def open_session(path: Path, *, threads: int) -> Any:
    """A session that computes one operator after another, each with so many threads.

    Raises:
        ConfigurationError: ONNX Runtime is not installed.
    """
    _require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


def run(session: Any, pixel_values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What a session of `open_session` makes of an image of its grid."""
    (embeds,) = session.run([_OUTPUT], {_INPUT: pixel_values})
    return np.asarray(embeds, dtype=np.float32)


def _for_grid(tower: Any, grid: Grid) -> Any:
    """A tower that takes pixel values alone."""
    import torch

    class ForGrid(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        def forward(self, pixel_values: Any) -> Any:
            return self.tower(pixel_values, grid_thw=torch.tensor([grid])).pooler_output

    return ForGrid()


def _patch_values(tower: Any) -> int:
    config = tower.config
    return int(config.in_channels * config.temporal_patch_size * config.patch_size**2)


@contextlib.contextmanager
def _no_tracer_warnings() -> Iterator[None]:
    """That constants come out of the trace is what an export of one grid is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"the vision encoder in ONNX Runtime needs onnx and onnxruntime ({error}); install "
            "them with pip install onnx onnxruntime."
        ) from error
