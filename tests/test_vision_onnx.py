"""The vision encoder in ONNX Runtime: torch's numbers for every grid, and defects are noticed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from helpers.paths import CHECKPOINT, FIXTURES
from onnx import numpy_helper

from benchmarks import vision_onnx
from benchmarks.vision_onnx import Grid, OnnxVision, export, load_tower, open_session
from pytest_ascend_vlm import Thresholds
from pytest_ascend_vlm.criteria import numerics as rules
from pytest_ascend_vlm.criteria.comparison import CaseComparison
from pytest_ascend_vlm.criteria.error_statistics import ErrorStatistics
from pytest_ascend_vlm.criteria.verdict import Verdict
from pytest_ascend_vlm.errors import CheckpointError, ConfigurationError

Pixels = npt.NDArray[np.float32]

BARS = rules.NumericsThresholds.of_hidden_states(Thresholds())
WIDE: Grid = (1, 12, 20)
HIGH: Grid = (1, 26, 8)
DAMAGED = "blocks.1.mlp.fc2"


def pixels(grid: Grid, seed: int = 0) -> Pixels:
    """Pixel values as a processor makes them of an image: a normal distribution."""
    shape = (int(np.prod(grid)), 3 * 2 * 14 * 14)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@lru_cache
def in_torch(grid: Grid, dtype: str) -> Pixels:
    import torch

    tower = load_tower(CHECKPOINT).to(getattr(torch, dtype))
    with torch.inference_mode():
        values = torch.from_numpy(pixels(grid))
        output = tower(values, grid_thw=torch.tensor([grid])).pooler_output
    return np.asarray(output.float().numpy())


def judged(observed: Pixels, grid: Grid) -> list[Verdict]:
    """The project's own rules: no error, counted in what bf16 does to torch itself."""
    tokens = len(observed)
    compared = CaseComparison(
        "第一页",
        f"image embeddings of width {observed.shape[1]}",
        np.arange(tokens),
        np.full(tokens, "image"),
        in_torch(grid, "float32"),
        in_torch(grid, "bfloat16"),
        observed,
    )
    measures = ErrorStatistics([compared])
    return [rules.judge_float32(measures), rules.judge_cosine_similarity(measures, BARS)]


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> OnnxVision:
    return OnnxVision(CHECKPOINT, tmp_path_factory.mktemp("exports"), threads=2)


@pytest.mark.parametrize("grid", [WIDE, HIGH])
def test_onnx_runtime_gives_what_torch_gives(vision: OnnxVision, grid: Grid) -> None:
    observed = vision.encode(pixels(grid), grid)
    assert observed.shape == (np.prod(grid) // 4, 128)
    assert all(verdict.passed for verdict in judged(observed, grid)), judged(observed, grid)


def test_another_image_is_noticed(vision: OnnxVision) -> None:
    assert not any(verdict.passed for verdict in judged(vision.encode(pixels(WIDE, 1), WIDE), WIDE))


def test_another_grid_of_as_many_patches_is_noticed(vision: OnnxVision) -> None:
    turned = (WIDE[0], WIDE[2], WIDE[1])
    probe, _ = judged(vision.encode(pixels(WIDE), turned), WIDE)
    assert not probe.passed


def test_a_lost_row_of_a_weight_is_noticed(tmp_path: Path) -> None:
    path = export(load_tower(CHECKPOINT), WIDE, tmp_path / "damaged")
    model = onnx.load(path)
    weight = next(w for w in model.graph.initializer if w.name.endswith(f"{DAMAGED}.weight"))
    values = numpy_helper.to_array(weight).copy()
    values[7] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    observed = vision_onnx.run(open_session(path, threads=2), pixels(WIDE))
    probe, _ = judged(observed, WIDE)
    assert not probe.passed


def test_an_export_is_written_once_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OnnxVision(CHECKPOINT, tmp_path, threads=1).encode(pixels(HIGH), HIGH)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["vision.onnx"]

    monkeypatch.setattr(vision_onnx, "export", lambda *_: pytest.fail("it was exported again"))
    OnnxVision(CHECKPOINT, tmp_path, threads=1).encode(pixels(HIGH), HIGH)


def test_an_export_that_broke_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def broken(_: object, __: object, path: str, **___: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.onnx, "export", broken)
    with pytest.raises(KeyboardInterrupt):
        export(load_tower(CHECKPOINT), HIGH, tmp_path / "分" / "grid")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_two_exports_of_one_grid_do_not_collide(tmp_path: Path) -> None:
    tower = load_tower(CHECKPOINT)
    first = export(tower, HIGH, tmp_path / "grid").stat()
    second = export(tower, HIGH, tmp_path / "grid").stat()
    assert first.st_ino == second.st_ino
    assert [path.name for path in tmp_path.iterdir()] == ["grid"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_what_is_not_installed_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match="pip install onnx onnxruntime"):
        OnnxVision(CHECKPOINT, tmp_path, threads=1)


def _empty(directory: Path) -> Path:
    return directory


def _without_config(directory: Path) -> Path:
    (directory / "model.safetensors").write_bytes(b"{}")
    return directory


def _of_another_family(_: Path) -> Path:
    return FIXTURES / "tiny" / "internvl"


@pytest.mark.parametrize(
    ("checkpoint", "error"),
    [
        (_empty, CheckpointError),
        (_without_config, ConfigurationError),
        (_of_another_family, ConfigurationError),
    ],
)
def test_a_checkpoint_without_such_an_encoder_is_refused(
    checkpoint: Callable[[Path], Path], error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error):
        OnnxVision(checkpoint(tmp_path), tmp_path / "cache", threads=1).encode(pixels(HIGH), HIGH)
