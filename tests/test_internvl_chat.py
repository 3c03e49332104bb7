"""Checkpoints in OpenGVLab's own format: names, tiles, prompts, and what the reference refuses."""

from __future__ import annotations

import dataclasses
import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.paths import FIXTURES, REPOSITORY
from PIL import Image

from pytest_ascend_vlm import Case
from pytest_ascend_vlm.engines import torch_companions

torch_companions.install()
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from pytest_ascend_vlm.engines.transformers.internvl_chat import (  # noqa: E402
    is_internvl_chat,
    load_model,
    load_processor,
    names,
)
from pytest_ascend_vlm.engines.transformers.internvl_chat.config import (  # noqa: E402
    transformers_config,
)
from pytest_ascend_vlm.engines.transformers.internvl_chat.tiles import (  # noqa: E402
    Tiler,
    closest_grid,
    grids,
)
from pytest_ascend_vlm.engines.transformers.model import Encoder, TransformersModel  # noqa: E402
from pytest_ascend_vlm.errors import ConfigurationError  # noqa: E402
from pytest_ascend_vlm.spec.case_files import load_cases  # noqa: E402

INTERNLM2 = FIXTURES / "tiny" / "internvl_chat"
QWEN2 = FIXTURES / "tiny" / "internvl_chat_qwen2"
MODEL = runpy.run_path(str(REPOSITORY / "conformance" / "test_internvl2.py"))["TestInternVL2"].model
CASES = {case.id: case for case in load_cases((FIXTURES,))}
IMAGE_TOKEN, VIDEO_TOKEN = 261, 262
Config = dict[str, Any]


def encoder(checkpoint: Path) -> Encoder:
    return Encoder(checkpoint, trust_remote_code=False)


def shown(checkpoint: Path, case: Case) -> str:
    """The prompt as text, with one image token for each row of them."""
    reader = encoder(checkpoint)
    ids = reader.prompt_token_ids(case)
    text = reader._processor.tokenizer.decode(ids, skip_special_tokens=False)
    pieces = [piece for piece in text.split("<IMG_CONTEXT>") if piece]
    return "<IMG_CONTEXT>".join(pieces)


def config_of(checkpoint: Path) -> Config:
    return dict(json.loads((checkpoint / "config.json").read_text("utf-8")))


def changed(checkpoint: Path, to: Path, change: Callable[[Config], Any]) -> Path:
    """A copy of a checkpoint with another config.json."""
    shutil.copytree(checkpoint, to)
    config = config_of(checkpoint)
    change(config)
    (to / "config.json").write_text(json.dumps(config), "utf-8")
    return to


# --- tensors -------------------------------------------------------------------------------------


def test_a_fused_projection_of_internlm2_is_split_by_key_heads() -> None:
    llm = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 4}
    fused = torch.tensor([0, 1, 20, 30, 2, 3, 21, 31])  # q q k v, of each key head
    q, k, v = names.split("language_model.model.layers.0.attention.wqkv.bias", fused, llm)
    assert (q.tolist(), k.tolist(), v.tolist()) == ([0, 1, 2, 3], [20, 21], [30, 31])


def test_a_fused_projection_of_the_tower_is_split_in_thirds() -> None:
    name = "vision_model.encoder.layers.1.attn.qkv.weight"
    assert names.transformers_names(name, internlm2=True) == tuple(
        f"vision_tower.encoder.layer.1.attention.{part}_proj.weight" for part in "qkv"
    )
    parts = names.split(name, torch.arange(6)[:, None], {})
    assert [part.flatten().tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("name", "internlm2", "new"),
    [
        ("mlp1.3.bias", False, "multi_modal_projector.linear_2.bias"),
        (
            "vision_model.embeddings.patch_embedding.weight",
            False,
            "vision_tower.embeddings.patch_embeddings.projection.weight",
        ),
        (
            "vision_model.embeddings.class_embedding",
            False,
            "vision_tower.embeddings.cls_token",
        ),
        ("vision_model.encoder.layers.10.ls2", False, "vision_tower.encoder.layer.10.lambda_2"),
        (
            "vision_model.encoder.layers.0.attn.q_norm.weight",
            False,
            "vision_tower.encoder.layer.0.attention.q_norm.weight",
        ),
        ("language_model.output.weight", True, "language_model.lm_head.weight"),
        (
            "language_model.model.layers.3.feed_forward.w2.weight",
            True,
            "language_model.model.layers.3.mlp.down_proj.weight",
        ),
        *(
            (name, False, name)
            for name in (
                "language_model.lm_head.weight",
                "language_model.model.layers.0.self_attn.q_norm.weight",
            )
        ),
    ],
)
def test_a_tensor_has_the_name_of_transformers(name: str, internlm2: bool, new: str) -> None:
    assert names.transformers_names(name, internlm2=internlm2) == (new,)


def test_a_tensor_of_another_architecture_is_named(tmp_path: Path) -> None:
    broken = changed(INTERNLM2, tmp_path / "broken", lambda _: None)
    weights = load_file(broken / "model.safetensors")
    weights["vision_model.encoder.layers.0.gate.weight"] = weights.pop("mlp1.0.weight")
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(ConfigurationError, match=r"cannot load .*broken: KeyError: 'gate'"):
        TransformersModel(broken, "float32", trust_remote_code=False)


def test_tensors_that_are_missing_are_named(tmp_path: Path) -> None:
    broken = changed(QWEN2, tmp_path / "broken", lambda _: None)
    weights = load_file(broken / "model.safetensors")
    del weights["language_model.model.norm.weight"]
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(ConfigurationError, match=r"missing: model\.language_model\.norm\.weight"):
        TransformersModel(broken, "float32", trust_remote_code=False)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match=r"broken has no \*\.safetensors files"):
        TransformersModel(broken, "float32", trust_remote_code=False)


# --- config.json ---------------------------------------------------------------------------------


def test_a_format_is_told_by_the_model_type(tmp_path: Path) -> None:
    assert is_internvl_chat(INTERNLM2)
    assert not is_internvl_chat(FIXTURES / "tiny" / "internvl")
    assert not is_internvl_chat(tmp_path)


def _set(*path: str, value: Any) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("ps_version", value="v1"), "ps_version is v1, not v2"),
        (_set("select_layer", value=-4), "select_layer is -4, not -1"),
        (
            _set("llm_config", "architectures", value=["Phi3ForCausalLM"]),
            "the decoder is Phi3ForCausalLM, not one of InternLM2ForCausalLM, ",
        ),
        (_set("vision_config", "norm_type", value="batch"), "norm_type of vision_config is batch"),
        (_set("force_image_size", value=448), "force_image_size is 448, but image_size of"),
    ],
)
def test_what_the_reference_cannot_compute_is_named(
    change: Callable[[Config], None], told: str, tmp_path: Path
) -> None:
    other = changed(INTERNLM2, tmp_path / "other", change)
    with pytest.raises(ConfigurationError) as refused:
        encoder(other)
    assert told in str(refused.value)
    with pytest.raises(ConfigurationError) as refused:
        TransformersModel(other, "float32", trust_remote_code=False)
    assert told in str(refused.value)


def test_a_tokenizer_without_the_image_token_is_refused(tmp_path: Path) -> None:
    other = changed(INTERNLM2, tmp_path / "other", lambda _: None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (other / name).read_text("utf-8").replace("<IMG_CONTEXT>", "<IMAGE>")
        (other / name).write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match="other has no token <IMG_CONTEXT>"):
        encoder(other)


def test_the_keys_of_a_published_config_are_accepted() -> None:
    config = config_of(INTERNLM2)
    config["llm_config"] |= {
        "_name_or_path": "internlm/internlm2_5-1_8b-chat",
        "add_cross_attention": False,
        "attn_implementation": "flash_attention_2",
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"},
        "bad_words_ids": None,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "max_length": 20,
        "pretraining_tp": 1,
        "pruned_heads": {},
        "temperature": 1.0,
        "transformers_version": "4.37.2",
        "use_bfloat16": False,
    }
    made = transformers_config(config, IMAGE_TOKEN)
    text = made.text_config
    assert (text.model_type, text.attention_bias, text.tie_word_embeddings) == (
        "llama",
        False,
        False,
    )
    assert made.image_seq_length == 1
    assert made.get_text_config().hidden_size == 128


def test_an_answer_ends_where_the_server_ends_it() -> None:
    model = load_model(INTERNLM2, trust_remote_code=False, dtype=torch.float32)
    assert model.generation_config.eos_token_id == [256, 258]


# --- dynamic RoPE --------------------------------------------------------------------------------

LENGTH = 64


def text_logits(checkpoint: Path, dtype: Any = torch.float32) -> tuple[Any, Any]:
    """The logits of a text of LENGTH tokens, and of one twice as long."""
    ids = torch.arange(2 * LENGTH)[None] % 200
    model = load_model(checkpoint, trust_remote_code=False, dtype=dtype).eval()
    with torch.inference_mode():
        # The short one first: Transformers keeps the frequencies of the longest text so far.
        return model(input_ids=ids[:, :LENGTH]).logits[0], model(input_ids=ids).logits[0]


def shorten(config: Config) -> None:
    config["llm_config"]["max_position_embeddings"] = LENGTH


def without_scaling(config: Config) -> None:
    config["llm_config"]["rope_scaling"] = None


def as_older_vllm(config: Config) -> None:
    """The base of vLLM before 0.22, of an InternLM2 with heads of 32: the same at every length."""
    config["llm_config"]["rope_theta"] *= (2.0 * 2.0 - 1) ** (32 / 30)
    without_scaling(config)


def llama_logits(checkpoint: Path) -> Any:
    """The decoder in Transformers' own Llama, with the base that OpenGVLab's code computes."""
    llm = config_of(checkpoint)["llm_config"]
    width = llm["hidden_size"] // llm["num_attention_heads"]
    base = llm["rope_theta"] * (2.0 * 2 * LENGTH / LENGTH - 1) ** (width / (width - 2))
    sizes = {name: value for name, value in llm.items() if name.startswith(("num_", "hidden_"))}
    config = transformers.LlamaConfig(
        **sizes,
        intermediate_size=llm["intermediate_size"],
        vocab_size=llm["vocab_size"],
        rms_norm_eps=llm["rms_norm_eps"],
        rope_theta=base,
        tie_word_embeddings=False,
    )
    tensors = names.to_transformers(load_file(checkpoint / "model.safetensors").items(), llm)
    start = "language_model."
    decoder = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    model = transformers.LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=decoder, dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        return model(input_ids=torch.arange(2 * LENGTH)[None] % 200).logits[0]


def test_dynamic_rope_changes_long_sequences_only(tmp_path: Path) -> None:
    scaled = changed(INTERNLM2, tmp_path / "scaled", shorten)
    short, long = text_logits(scaled)
    plain_short, plain_long = text_logits(INTERNLM2)
    assert torch.equal(short, plain_short)
    assert (long - plain_long).abs().max() > 1
    assert torch.allclose(long, llama_logits(scaled), atol=1e-3)


def test_the_tiny_checkpoint_has_the_scaling_of_the_published_one(tmp_path: Path) -> None:
    llm = config_of(INTERNLM2)["llm_config"]
    assert llm["rope_scaling"] == {"type": "dynamic", "factor": 2.0}
    assert llm["max_position_embeddings"] >= MODEL.serve["max_model_len"]
    plain = changed(INTERNLM2, tmp_path / "plain", without_scaling)
    for scaled, unscaled in zip(text_logits(INTERNLM2), text_logits(plain), strict=True):
        assert torch.equal(scaled, unscaled)


def test_scaling_at_every_length_is_no_rounding(tmp_path: Path) -> None:
    older = changed(INTERNLM2, tmp_path / "older", as_older_vllm)
    right, wrong = text_logits(INTERNLM2)[0], text_logits(older)[0]
    rounded = text_logits(INTERNLM2, torch.bfloat16)[0].float()
    ratio = (wrong - right).square().mean().sqrt() / (rounded - right).square().mean().sqrt()
    assert ratio > 10 * MODEL.thresholds.error_ratio


@pytest.mark.parametrize(
    ("release", "known"), [("0.11.0", True), ("0.21.0", True), ("0.22.0", False)]
)
def test_scaling_at_every_length_is_known_of_older_releases(release: str, known: bool) -> None:
    failures = MODEL.expected_failures
    assert {failure.may_occur(release) for failure in failures} == {known}
    seen = {failure.criterion for failure in failures if failure.was_seen(release)}
    assert ("numerics.logits[error_ratio]" in seen) == known


def test_only_answers_of_the_tiny_checkpoint_are_excused() -> None:
    """The published base is larger, so its answers may stay right, and are judged."""
    of_both = {one.criterion for one in MODEL.expected_failures if not one.checkpoint}
    # baseline.order compares logits.
    assert {name for name in of_both if not name.startswith("numerics.")} == {"baseline.order"}


@pytest.mark.parametrize("checkpoint", [INTERNLM2, QWEN2], ids=lambda path: path.name)
def test_vllm_can_send_the_configuration_to_its_engine(checkpoint: Path) -> None:
    """In vLLM 0.18 it is pickled, remote code by value: with all that its methods refer to."""
    cloudpickle = pytest.importorskip("cloudpickle")
    config = transformers.AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)
    cloudpickle.register_pickle_by_value(sys.modules[type(config).__module__])
    again = cloudpickle.loads(cloudpickle.dumps(config))
    assert again.llm_config.to_dict() == config.llm_config.to_dict()


# --- tiles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "published", "small", "tiny"),
    [
        ((640, 480), (4, 3), (4, 3), (13, 10)),
        ((300, 900), (1, 3), (2, 6), (7, 20)),
        ((1000, 210), (5, 1), (5, 1), (24, 5)),
        ((77, 41), (2, 1), (4, 2), (15, 8)),
        ((30, 500), (1, 12), (1, 12), (3, 46)),
        ((1, 1), (1, 1), (1, 1), (11, 11)),
        ((448, 448), (1, 1), (3, 3), (11, 11)),
        ((2480, 3508), (2, 3), (2, 3), (10, 14)),
        ((3000, 200), (12, 1), (12, 1), (45, 3)),
    ],
)
def test_an_image_is_cut_as_vllm_cuts_it(
    size: tuple[int, int],
    published: tuple[int, int],
    small: tuple[int, int],
    tiny: tuple[int, int],
) -> None:
    """The grids are those of vLLM 0.32."""
    assert closest_grid(size, 448, grids(1, 12)) == published
    assert closest_grid(size, 28, grids(1, 12)) == small
    assert closest_grid(size, 28, grids(120, 140)) == tiny


def noise(width: int, height: int) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def test_tiles_are_in_reading_order_and_the_thumbnail_is_last() -> None:
    image, tiler = noise(56, 28), Tiler(28, 1, 12, True, True)
    tiles = dataclasses.replace(tiler, max_dynamic_patch=2)(image)
    assert tiles.shape == (3, 3, 28, 28)
    for tile, left in ((tiles[0], 0), (tiles[1], 28)):
        cut = image.crop((left, 0, left + 28, 28))
        alone = dataclasses.replace(tiler, dynamic_image_size=False)(cut)
        assert torch.equal(tile, alone[0])
    whole = dataclasses.replace(tiler, dynamic_image_size=False)(image)
    assert torch.equal(tiles[2], whole[0])
    assert len(dataclasses.replace(tiler, use_thumbnail=False, max_dynamic_patch=2)(image)) == 2


def test_levels_are_normalised_like_those_of_imagenet() -> None:
    (tile,) = Tiler(28, 1, 1, True, True)(Image.new("RGB", (28, 28), (255, 0, 51)))
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    assert tile[:, 5, 7].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.vllm
@pytest.mark.parametrize("size", [(640, 480), (300, 900), (77, 41), (1, 1), (2480, 3508)])
def test_tiles_equal_vllms_to_the_bit(size: tuple[int, int]) -> None:
    theirs = pytest.importorskip("vllm.transformers_utils.processors.internvl")
    for side, least, most, thumbnail in ((28, 120, 140, True), (448, 1, 6, False)):
        expected = theirs.image_to_pixel_values_internvl(
            noise(*size), input_size=side, min_num=least, max_num=most, use_thumbnail=thumbnail
        )
        assert torch.equal(Tiler(side, least, most, True, thumbnail)(noise(*size)), expected)


# --- prompts -------------------------------------------------------------------------------------


def test_an_image_is_in_front_of_the_text() -> None:
    assert shown(INTERNLM2, CASES["document/page-07"]) == (
        "<|im_start|>user\n<img><IMG_CONTEXT></img>\nExtract all text from this document image."
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = encoder(INTERNLM2).prompt_token_ids(CASES["document/page-07"])
    assert ids.count(IMAGE_TOKEN) == 12 * 10 + 1


def test_images_of_a_message_are_in_front_of_its_texts() -> None:
    text = shown(INTERNLM2, CASES["order/interleaved"])
    places = 3 * "<img><IMG_CONTEXT></img>\n"
    assert text.startswith(f"<|im_start|>user\n{places}Image 1: \n")


def test_the_frames_of_a_clip_are_numbered_tiles() -> None:
    reader, clip = encoder(QWEN2), CASES["clip/numbers"]
    frames = "".join(f"Frame{number}: <img><IMG_CONTEXT></img>" for number in range(1, 5))
    assert f"user\n{frames}\nWhich numbers" in shown(QWEN2, clip)
    assert reader.placeholders(clip) == (IMAGE_TOKEN, VIDEO_TOKEN)
    sequence = reader.with_answer(clip, "7")
    assert sequence.is_image.sum() == 4
    assert sequence.inputs["pixel_values"].shape == (4, 3, 28, 28)


def test_a_clip_that_vllm_refuses_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="This checkpoint has internlm2"):
        encoder(INTERNLM2).prompt(CASES["clip/numbers"])


def test_a_place_in_a_users_text_stays_text() -> None:
    processor, _ = load_processor(QWEN2, trust_remote_code=False)
    chat = [{"role": "user", "content": "What does <image> mean?"}]
    text = processor.apply_chat_template(chat, tokenize=False)
    inputs = processor(text=[text])
    assert "<image>" in processor.tokenizer.decode(inputs["input_ids"][0])
    assert "pixel_values" not in inputs


def test_a_template_of_parts_places_the_images_itself(tmp_path: Path) -> None:
    other = changed(INTERNLM2, tmp_path / "other", lambda _: None)
    template = (FIXTURES / "tiny" / "internvl" / "chat_template.jinja").read_text("utf-8")
    (other / "chat_template.jinja").write_text(
        template.replace("<IMG_CONTEXT>", "<image>"), "utf-8"
    )
    text = shown(other, CASES["order/interleaved"])
    assert "Image 1: <img><IMG_CONTEXT></img>\n Image 2: <img>" in text


def test_arguments_of_the_server_change_the_tiles() -> None:
    page = CASES["document/page-07"]
    few = {"min_dynamic_patch": 1, "max_dynamic_patch": 6, "unknown": 1}
    bounded = Encoder(INTERNLM2, trust_remote_code=False, arguments=few)
    assert bounded.prompt_token_ids(page).count(IMAGE_TOKEN) == 2 * 2 + 1
    whole = Encoder(INTERNLM2, trust_remote_code=False, arguments={"dynamic_image_size": False})
    assert whole.prompt_token_ids(page).count(IMAGE_TOKEN) == 1


def test_a_prompt_of_the_offline_engine_has_places() -> None:
    prompt = encoder(INTERNLM2).vllm_prompt(CASES["document/page-07"], "PROFIT")
    assert prompt["prompt"].endswith("<|im_start|>assistant\nPROFIT")
    assert prompt["prompt"].count("<image>") == 1
    assert len(prompt["multi_modal_data"]["image"]) == 1


@pytest.mark.parametrize("checkpoint", [INTERNLM2, QWEN2], ids=lambda path: path.name)
def test_the_reference_reads_a_page(checkpoint: Path) -> None:
    case = CASES["document/page-07"]
    reader = encoder(checkpoint)
    model = TransformersModel(checkpoint, "bfloat16", trust_remote_code=False)
    assert reader.text(model.generate(reader.prompt(case), case.max_tokens).token_ids) == case.truth
