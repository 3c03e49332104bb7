"""The card of a checkpoint: what config.json and the headers of the weights say about a model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import FIXTURES
from safetensors import safe_open

from pytest_ascend_vlm.checkpoints.card import ModelCard, Tensor, model_card, read_card
from pytest_ascend_vlm.checkpoints.tokens import text_tokenizer, token_texts

TINY = sorted((FIXTURES / "tiny").iterdir())
SAVED_MROPE = {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"}

# As the hubs' config.json has them, without what a card does not show.
MINERU2_5 = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "hidden_size": 896,
    "max_position_embeddings": 16384,
    "model_type": "qwen2_vl",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rope_scaling": {"mrope_section": [8, 12, 12], "rope_type": "default", "type": "default"},
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 896,
        "model_type": "qwen2_vl",
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
    },
    "vocab_size": 151936,
}
QWEN2_5_VL_7B = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "hidden_size": 3584,
    "max_position_embeddings": 128000,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "rope_theta": 1000000.0,
    "torch_dtype": "bfloat16",
    "vision_config": {
        "depth": 32,
        "hidden_size": 1280,
        "num_heads": 16,
        "out_hidden_size": 3584,
        "patch_size": 14,
    },
    "vocab_size": 152064,
}
QWEN3_VL_8B = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "text_config": {
        "dtype": "bfloat16",
        "head_dim": 128,
        "hidden_size": 4096,
        "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text",
        "num_attention_heads": 32,
        "num_hidden_layers": 36,
        "num_key_value_heads": 8,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "vocab_size": 151936,
    },
    "vision_config": {"depth": 27, "hidden_size": 1152, "num_heads": 16, "patch_size": 16},
}
GLM_OCR = {
    "architectures": ["GlmOcrForConditionalGeneration"],
    "model_type": "glm_ocr",
    "text_config": {
        "dtype": "bfloat16",
        "head_dim": 128,
        "hidden_size": 1536,
        "max_position_embeddings": 131072,
        "model_type": "glm_ocr_text",
        "num_attention_heads": 16,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "rope_parameters": {
            "mrope_section": [16, 24, 24],
            "rope_theta": 10000,
            "rope_type": "default",
        },
        "vocab_size": 59392,
    },
    "vision_config": {
        "depth": 24,
        "hidden_size": 1024,
        "image_size": 336,
        "num_heads": 16,
        "patch_size": 14,
    },
}
INTERNVL2_2B = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"],
        "hidden_size": 2048,
        "max_position_embeddings": 32768,
        "model_type": "internlm2",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "num_key_value_heads": 8,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rope_theta": 1000000,
        "vocab_size": 92553,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "hidden_size": 1024,
        "image_size": 448,
        "model_type": "intern_vit_6b",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
INTERNVL3_HF = {
    "architectures": ["InternVLForConditionalGeneration"],
    "model_type": "internvl",
    "text_config": {
        "hidden_size": 896,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "rope_theta": 1000000.0,
        "vocab_size": 151674,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": [448, 448],
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": [14, 14],
    },
}


def parts(
    config: dict[str, Any],
) -> tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any], tuple[Any, ...]]:
    """Vision tower, decoder, rope, and the rest of a config's card, in short."""
    card = model_card(config, {})
    tower = ("layers", "hidden_size", "heads", "patch_size", "image_size")
    decoder = ("layers", "hidden_size", "heads", "kv_heads", "head_dim", "vocabulary")
    return (
        tuple(card.vision.get(name) for name in tower),
        tuple(card.decoder.get(name) for name in decoder),
        dict(card.rope),
        (card.architecture, card.decoder["model_type"], card.dtype, card.max_position_embeddings),
    )


def test_mineru2_5_is_as_its_document_says() -> None:
    vision, decoder, rope, rest = parts(MINERU2_5)
    assert vision == (32, 1280, 16, 14, None)  # hidden_size of its vision_config is the decoder's
    assert decoder == (24, 896, 14, 2, 64, 151936)
    assert rope == {"theta": 1000000.0, "type": "mrope", "mrope_section": [8, 12, 12]}
    assert rest == ("Qwen2VLForConditionalGeneration", "qwen2_vl", "bfloat16", 16384)


def test_qwen2_5_vl_has_its_decoder_at_the_top_or_in_a_part_of_its_own() -> None:
    flat = parts(QWEN2_5_VL_7B)
    assert flat[0] == (32, 1280, 16, 14, None)
    assert flat[1] == (28, 3584, 28, 4, 128, 152064)
    assert flat[2] == {"theta": 1000000.0, "type": "mrope", "mrope_section": [16, 24, 24]}
    tower = QWEN2_5_VL_7B["vision_config"]
    own = {name: value for name, value in QWEN2_5_VL_7B.items() if name != "vision_config"}
    own |= {"model_type": "qwen2_5_vl_text", "rope_scaling": SAVED_MROPE}
    nested = parts(
        {
            "architectures": own.pop("architectures"),
            "text_config": own,
            "hidden_size": 1,  # Transformers writes some fields twice; the part is the newer one
            "vision_config": tower,
        }
    )
    assert nested[:3] == flat[:3]
    assert nested[3] == (*flat[3][:1], "qwen2_5_vl_text", *flat[3][2:])


def test_qwen3_vl() -> None:
    vision, decoder, rope, rest = parts(QWEN3_VL_8B)
    assert vision == (27, 1152, 16, 16, None)
    assert decoder == (36, 4096, 32, 8, 128, 151936)
    assert rope == {"theta": 5000000, "type": "mrope", "mrope_section": [24, 20, 20]}
    assert rest == ("Qwen3VLForConditionalGeneration", "qwen3_vl_text", "bfloat16", 262144)


def test_glm_ocr_names_its_positions_as_transformers_5_does() -> None:
    vision, decoder, rope, rest = parts(GLM_OCR)
    assert vision == (24, 1024, 16, 14, 336)
    assert decoder == (16, 1536, 16, 8, 128, 59392)
    assert rope == {"theta": 10000, "type": "mrope", "mrope_section": [16, 24, 24]}
    assert rest == ("GlmOcrForConditionalGeneration", "glm_ocr_text", "bfloat16", 131072)


@pytest.mark.parametrize(
    ("config", "decoder"),
    [
        (INTERNVL2_2B, (24, 2048, 16, 8, 128, 92553)),
        (INTERNVL3_HF, (24, 896, 14, 2, 64, 151674)),
    ],
    ids=["internvl_chat", "internvl"],
)
def test_both_formats_of_internvl(config: dict[str, Any], decoder: tuple[int, ...]) -> None:
    found = parts(config)
    assert found[0] == (24, 1024, 16, 14, 448)
    assert found[1] == decoder
    assert found[2] == {"theta": 1000000, "type": "dynamic", "factor": 2.0}
    assert found[3][0] == config["architectures"][0]  # not the decoder's or the tower's
    assert found[3][2:] == ("bfloat16", 32768)


def test_a_tile_that_is_no_square_keeps_both_sides() -> None:
    config = {"vision_config": {"image_size": [448, 224], "patch_size": [14, 14]}}
    assert model_card(config, {}).vision == {"image_size": [448, 224], "patch_size": 14}


def test_what_a_config_lacks_is_left_out() -> None:
    assert model_card({}, {}) == ModelCard(None, None, None, None, None, None, {}, {}, {})


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", TINY, ids=lambda path: path.name)
def test_the_parameters_of_a_tiny_checkpoint_are_those_of_its_tensors(checkpoint: Path) -> None:
    (file,) = checkpoint.glob("*.safetensors")
    with safe_open(file, framework="np") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    card = read_card(checkpoint)
    assert card is not None
    assert card.parameters == sum(map(math.prod, shapes))
    assert card.bytes == 2 * card.parameters
    header = int.from_bytes(file.read_bytes()[:8], "little")
    assert card.bytes == file.stat().st_size - 8 - header
    assert card.dtype == "bfloat16"
    assert card.decoder["vocabulary"] == 288
    assert (card.vision["layers"], card.vision["hidden_size"]) == (2, 96)
    assert (card.decoder["layers"], card.decoder["hidden_size"]) == (4, 128)


TIED = [
    ("model.embed_tokens.weight", "lm_head.weight"),
    ("language_model.model.tok_embeddings.weight", "language_model.output.weight"),
]


@pytest.mark.parametrize(("embeddings", "head"), TIED)
def test_a_stored_copy_of_tied_weights_counts_once(embeddings: str, head: str) -> None:
    table, layer = Tensor("BF16", (10, 4), 80), Tensor("BF16", (4, 4), 32)
    attention = "language_model.model.layers.0.attention.output.weight"
    tensors = {embeddings: table, head: table, attention: layer}
    for tied, parameters in ((True, 56), (False, 96)):
        for config in (
            {"tie_word_embeddings": tied},
            {"tie_word_embeddings": not tied, "text_config": {"tie_word_embeddings": tied}},
        ):
            card = model_card(config, tensors)
            assert (card.parameters, card.bytes) == (parameters, 2 * parameters)


def write(directory: Path, name: str, **shapes: tuple[int, ...]) -> None:
    """Writes a safetensors file of float16 zeros."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[tensor] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    (directory / name).write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def test_shards_are_counted_together_and_other_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    write(tmp_path, "model-00001-of-00002.safetensors", a=(3, 4))
    write(tmp_path, "model-00002-of-00002.safetensors", b=(5,), scalar=())
    card = read_card(tmp_path)
    assert card is not None
    assert (card.parameters, card.bytes, card.dtype) == (18, 36, "float16")
    write(tmp_path, "consolidated.safetensors", other_name_of_a=(3, 4))
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}), "utf-8")
    assert read_card(tmp_path) == card


def test_weights_in_another_format_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MINERU2_5), "utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"zip")
    card = read_card(tmp_path)
    assert card is not None
    assert (card.parameters, card.bytes) == (None, None)
    assert card.vision["layers"] == 32


@pytest.mark.parametrize("config", ["", "[]", "{", '{"vision_config": 3}'])
def test_a_damaged_config_has_no_card(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config, "utf-8")
    assert read_card(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"weights", b"\xff" * 20, bytes(8), b"\2" + bytes(9)])
def test_a_damaged_header_has_no_card(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read_card(tmp_path) is None


# --- tokens --------------------------------------------------------------------------------------


def test_tokens_have_their_texts_and_special_tokens_their_names(tmp_path: Path) -> None:
    text = token_texts(text_tokenizer(FIXTURES / "tiny" / "qwen2_vl"))
    assert text(ord("P")) == "P"
    assert text(258) == "<|im_end|>"
    assert text(0xE5) == "\N{REPLACEMENT CHARACTER}"  # the first of three bytes
    assert text(999_999) == "token 999999"
    assert token_texts(text_tokenizer(tmp_path))(88) == "token 88"
