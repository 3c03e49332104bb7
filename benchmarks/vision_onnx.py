"""The vision encoder of a checkpoint in ONNX Runtime, float32 on CPU.

For checkpoints whose vision tower takes pixel values and a grid, like Qwen2-VL (MinerU2.5). An
export is valid for one grid only: rotary embeddings and attention bounds become constants, so the
graph contains only operators that every build of ONNX Runtime supports. Exports are stored in a
directory of the caller, by the checkpoint's digest.

PyTorch exports by tracing (`dynamo=False`), because `torch.export` fails at the tower's
data-dependent split of attention. Tracing does not need onnxscript either.
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
"""Number of patches in time, height and width, before merging."""

_FILE = "vision.onnx"
_INPUT, _OUTPUT = "pixel_values", "image_embeds"
_OPSET = 17


class OnnxVision:
    """A checkpoint's vision encoder, with one cached session per grid."""

    def __init__(self, checkpoint: Path, cache: Path, *, threads: int) -> None:
        """Loads nothing yet.

        Args:
            checkpoint: the checkpoint's directory.
            cache: directory for the exports.
            threads: number of threads per operator.

        Raises:
            CheckpointError: if the checkpoint contains no weights.
            ConfigurationError: if onnx or ONNX Runtime is not installed.
        """
        _require_onnx()
        self._checkpoint = checkpoint
        self._cache = cache / weights_digest(checkpoint)[:16]
        self._threads = threads
        self._sessions: dict[Grid, Any] = {}

    def encode(self, pixel_values: npt.NDArray[np.float32], grid: Grid) -> npt.NDArray[np.float32]:
        """The image embeddings that the language model gets.

        Args:
            pixel_values: shape (patches, values per patch), from the checkpoint's processor.
            grid: the image's `image_grid_thw`, from the same processor.

        Returns:
            Shape (image tokens, width of the language model).

        Raises:
            ConfigurationError: if Transformers cannot load the checkpoint, or its vision tower is
                of another kind.
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
        ConfigurationError: if the checkpoint cannot be loaded, or has no such vision tower.
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
    """Exports a tower as `vision.onnx` for one grid; creates the directory atomically.

    Args:
        tower: takes (pixel values, grid); its output has a `pooler_output`.
        grid: the only grid that the export is valid for.
        directory: directory to create; an export of another process is kept.

    Returns:
        The file. Weights beyond 2 GiB, protobuf's limit, are in files beside it.
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
            if not directory.is_dir():  # otherwise another process exported the same weights first
                raise
    return directory / _FILE


def open_session(path: Path, *, threads: int) -> Any:
    """A session that runs operators sequentially, each with N threads.

    Raises:
        ConfigurationError: if ONNX Runtime is not installed.
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
    """Runs a session of `open_session` on an image of its grid."""
    (embeds,) = session.run([_OUTPUT], {_INPUT: pixel_values})
    return np.asarray(embeds, dtype=np.float32)


def _for_grid(tower: Any, grid: Grid) -> Any:
    """Wraps a tower for one grid: its only input is the pixel values."""
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
    """Suppresses warnings about constants in the trace, which are intended here."""
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
