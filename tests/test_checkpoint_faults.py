"""Faults of the checkpoint: what they change in a copy, and that a model still loads from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from faults.checkpoint import (
    FAULTS,
    CheckpointFault,
    NotApplicableError,
    harmed_copy,
    noise,
    rounded,
    settings,
    weights,
)
from helpers.paths import FIXTURES
from safetensors.torch import load_file

BY_NAME = {fault.name: fault for fault in FAULTS}
PAIRS = [(fault, model) for fault in FAULTS for model in fault.models]
WEIGHTS = "model.safetensors"


def harmed(name: str, model: str, root: Path) -> tuple[Path, Path]:
    """The sound and the harmed directory of a checkpoint."""
    sound = FIXTURES / "tiny" / model
    return sound, harmed_copy(sound, BY_NAME[name].harm, root) / "tiny" / model


def changed_files(sound: Path, faulty: Path) -> set[str]:
    names = {path.name for path in (*sound.iterdir(), *faulty.iterdir())}
    return {name for name in names if (sound / name).read_bytes() != (faulty / name).read_bytes()}


def changed_weights(sound: Path, faulty: Path) -> set[str]:
    before, after = load_file(sound / WEIGHTS), load_file(faulty / WEIGHTS)
    missing = before.keys() ^ after.keys()
    both = before.keys() & after.keys()
    return missing | {name for name in both if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("fault", "model"), PAIRS, ids=[f"{f.name}-{m}" for f, m in PAIRS])
def test_each_fault_can_be_put_into_each_of_its_models(
    fault: CheckpointFault, model: str, tmp_path: Path
) -> None:
    sound, faulty = harmed(fault.name, model, tmp_path)
    assert changed_files(sound, faulty)
    for path in faulty.glob("*.json"):
        json.loads(path.read_text("utf-8"))


def test_a_fault_that_changes_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="changes nothing in qwen2_vl"):
        harmed_copy(FIXTURES / "tiny" / "qwen2_vl", lambda _: None, tmp_path)


@pytest.mark.parametrize(
    "harm",
    [
        settings("no_such_key", lambda _: 1, "it has none"),
        weights("no-such", lambda _: 1, "it has none"),
    ],
    ids=["settings", "weights"],
)
def test_a_fault_that_finds_nothing_to_change_says_why(harm: Any, tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="it has none"):
        harmed_copy(FIXTURES / "tiny" / "qwen2_vl", harm, tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.4])
def test_noise_is_as_large_as_it_says(share: float) -> None:
    tensor = torch.ones(200, 100) * 3
    error = noise(share)(tensor) - tensor
    assert float(error.std()) == pytest.approx(3 * share, rel=0.05)
    assert torch.equal(noise(share)(tensor), noise(share)(tensor))


def test_rounding_leaves_so_many_values() -> None:
    matrix = torch.randn((3, 500), generator=torch.Generator().manual_seed(0))
    rows = rounded(7)(matrix)
    assert all(len(row.unique()) <= 15 for row in rows)
    assert float((rows - matrix).abs().max()) < float(matrix.abs().max()) / 7
    vector = matrix[0]
    assert rounded(7)(vector) is vector


def test_one_row_of_the_output_layer_is_larger(tmp_path: Path) -> None:
    sound, faulty = harmed("output-row-3", "qwen2_vl", tmp_path)
    assert changed_weights(sound, faulty) == {"lm_head.weight"}
    assert json.loads((faulty / "config.json").read_text("utf-8"))["tie_word_embeddings"] is False
    weights = load_file(faulty / WEIGHTS)
    head, embeddings = weights["lm_head.weight"], weights["model.embed_tokens.weight"]
    rows = [row for row in range(len(head)) if not torch.equal(head[row], embeddings[row])]
    assert len(rows) == 1
    ratio = head[rows].float().norm() / embeddings[rows].float().norm()
    assert float(ratio) == pytest.approx(1.03, abs=0.005)


def test_only_the_tower_is_noisy(tmp_path: Path) -> None:
    for model in BY_NAME["tower-weights-noise-5"].models:
        changed = changed_weights(*harmed("tower-weights-noise-5", model, tmp_path / model))
        assert changed
        assert all("visual" in name or "vision" in name for name in changed)


def test_one_row_is_zero(tmp_path: Path) -> None:
    sound, faulty = harmed("zeroed-row", "qwen3_vl", tmp_path)
    (name,) = changed_weights(sound, faulty)
    assert not load_file(faulty / WEIGHTS)[name][0].any()


@pytest.mark.parametrize(
    ("name", "model", "key", "value"),
    [
        ("resized-bilinear", "qwen2_vl", ("resample",), 2),
        ("max-pixels-fifth", "qwen2_5_vl", ("max_pixels",), 200704),
        ("max-pixels-fifth", "qwen3_vl", ("size", "longest_edge"), 200704),
        ("min-pixels-sixteenfold", "glm_ocr", ("size", "shortest_edge"), 12544),
        ("fewer-tiles", "internvl", ("max_patches",), 40),
        ("image-mean-of-another-family", "qwen2_vl", ("image_mean",), [0.5, 0.5, 0.5]),
        ("mean-of-other-channels", "internvl", ("image_std",), [0.225, 0.224, 0.229]),
    ],
)
def test_the_processor_is_set_otherwise(
    name: str, model: str, key: tuple[str, ...], value: Any, tmp_path: Path
) -> None:
    _, faulty = harmed(name, model, tmp_path)
    found = json.loads((faulty / "preprocessor_config.json").read_text("utf-8"))
    for part in key:
        found = found[part]
    assert found == value


# --- chat templates ------------------------------------------------------------------------------

MESSAGES = [
    {"role": "system", "content": "Be short."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Read "},
            {"type": "image"},
            {"type": "text", "text": "now"},
        ],
    },
]


def prompt(checkpoint: Path, messages: list[Any]) -> str:
    template = (checkpoint / "chat_template.jinja").read_text("utf-8")
    return jinja2.Template(template).render(messages=messages, add_generation_prompt=True)


@pytest.mark.parametrize("model", BY_NAME["template-pictures-first"].models)
def test_the_template_puts_pictures_first(model: str, tmp_path: Path) -> None:
    sound, faulty = harmed("template-pictures-first", model, tmp_path)
    content = MESSAGES[1]["content"]
    reordered = [MESSAGES[0], {"role": "user", "content": [content[1], content[0], content[2]]}]
    assert prompt(faulty, MESSAGES) == prompt(sound, reordered)
    assert prompt(faulty, MESSAGES) != prompt(sound, MESSAGES)
    assert prompt(faulty, reordered) == prompt(sound, reordered)


@pytest.mark.parametrize("model", BY_NAME["template-without-system"].models)
def test_the_template_leaves_out_the_system_message(model: str, tmp_path: Path) -> None:
    sound, faulty = harmed("template-without-system", model, tmp_path)
    assert prompt(faulty, MESSAGES) == prompt(sound, MESSAGES[1:])
    assert prompt(faulty, MESSAGES[1:]) == prompt(sound, MESSAGES[1:])


@pytest.mark.parametrize("model", BY_NAME["template-of-equal-length"].models)
def test_the_template_names_another_role_in_as_many_tokens(model: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    sound, faulty = harmed("template-of-equal-length", model, tmp_path)
    tokenizer = Tokenizer.from_file(str(sound / "tokenizer.json"))
    right, wrong = (
        tokenizer.encode(prompt(one, MESSAGES), add_special_tokens=False).ids
        for one in (sound, faulty)
    )
    assert right != wrong
    assert len(right) == len(wrong)
