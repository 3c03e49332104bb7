"""The model table of a checkpoint with MinerU2.5's true geometry; its weights are a hole in a file.

Transformers makes the model without memory, so the shapes are its own. The published document says
1.2 B and 2.15 GB, which is GiB.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_card import MINERU2_5
from test_document import report, row

from pytest_ascend_vlm.checkpoints.card import ModelCard, read_card
from pytest_ascend_vlm.engines import torch_companions
from pytest_ascend_vlm.reporting.markdown import render

torch_companions.install()
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PARAMETERS = 1_156_026_624
HEAD = 151_936 * 896


def write(directory: Path, *, is_tied: bool) -> ModelCard:
    """Writes config.json and the header of the weights, and reads the card."""
    settings = {**MINERU2_5, "intermediate_size": 4864, "tie_word_embeddings": is_tied}
    (directory / "config.json").write_text(json.dumps(settings), "utf-8")
    with torch.device("meta"):
        config = transformers.Qwen2VLConfig(**settings)
        model = transformers.Qwen2VLForConditionalGeneration(config)
    header, end = {}, 0
    for name, tensor in model.named_parameters():
        start, end = end, end + 2 * tensor.numel()
        shape = [*tensor.shape]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    card = read_card(directory)
    assert card is not None
    return card


def test_the_parameters_of_mineru2_5_are_those_that_are_published(tmp_path: Path) -> None:
    card = write(tmp_path, is_tied=True)
    assert card.parameters == PARAMETERS
    assert card.bytes is not None
    assert round(card.bytes / 2**30, 2) == 2.15


def test_a_head_of_its_own_counts(tmp_path: Path) -> None:
    assert write(tmp_path, is_tied=False).parameters == PARAMETERS + HEAD


def test_the_table_of_the_model_has_the_lines_of_the_published_document(tmp_path: Path) -> None:
    card = dataclasses.asdict(write(tmp_path, is_tied=True))
    text = render(report(row("serving.text", None), card=card), "zh")
    for line in (
        "| 模型架构 | Qwen2VLForConditionalGeneration (qwen2\\_vl) |",
        "| 参数量 | 1.16 B（实际统计 1,156,026,624） |",
        "| 模型尺寸 | 2.31 GB |",
        "| 视觉编码器 | 32 层、hidden\\_size 1280、16 heads、patch size 14 |",
        "| 语言解码器 | qwen2\\_vl、24 层、hidden\\_size 896、head\\_dim 64、词表 151936 |",
        "| GQA 配置 | 14 heads、2 KV heads |",
        "| RoPE 类型 | mrope、mRoPE \\[8, 12, 12\\]、theta 1e+06 |",
        "| 最大序列长度 | 16384 token |",
        "| 推理精度 | bfloat16 |",
    ):
        assert line in text.splitlines()
