"""Declarations of a contributor, and the message for each mistake."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.models import model_spec
from helpers.paths import FIXTURES
from PIL import Image

from pytest_ascend_vlm import (
    Budgets,
    Capability,
    Case,
    ExpectedFailure,
    Limit,
    ModelSpec,
    Thresholds,
    Variant,
)
from pytest_ascend_vlm import VLMConformance as Conformance
from pytest_ascend_vlm.checkpoints.digest import weights_digest
from pytest_ascend_vlm.checkpoints.find import Places, find_checkpoint
from pytest_ascend_vlm.errors import CheckpointError, ConfigurationError
from pytest_ascend_vlm.spec.case_files import load_cases, read_case, write_case
from pytest_ascend_vlm.spec.thresholds import NUMBERS

TEXT, IMAGE = Capability.TEXT, Capability.IMAGE
DOCUMENT, VIDEO = Capability.DOCUMENT, Capability.VIDEO


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_id": " / "}, "model_id is empty"),
        (
            {"unsupported": {}},
            "the model supports Capability.DOCUMENT, Capability.GROUNDING, Capability.",
        ),
        ({"supports": {TEXT}}, "declare whether the model supports Capability.IMAGE:"),
        ({"supports": {TEXT, IMAGE, VIDEO}}, "Capability.VIDEO is in supports and in unsupported"),
        (
            {"supports": {IMAGE}, "unsupported": dict.fromkeys(set(Capability) - {IMAGE}, "no")},
            "every criterion needs Capability.TEXT",
        ),
        ({"devices": 0}, "devices=0"),
        ({"serve": {"port": 8000}}, "serve sets port"),
        ({"serve": {"model": "x"}}, "serve sets model"),
        ({"serve": {"trust_remote_code": True}}, "trust_remote_code=True on the model"),
        ({"serve": {"max-model-len": 8192}}, "underscores: max-model-len"),
    ],
)
def test_a_contradiction_names_the_model_and_the_field(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        model_spec(**fields)
    model_id = fields.get("model_id", "an-org/a-model")
    assert str(caught.value).startswith(f"ModelSpec({model_id!r}): ")
    assert "\n" not in str(caught.value)


def test_a_model_is_frozen_down_to_its_mappings() -> None:
    serve = {"max_model_len": 8192}
    model = model_spec(serve=serve)
    serve["max_model_len"] = 1
    assert model.serve["max_model_len"] == 8192
    with pytest.raises(TypeError):
        model.serve["seed"] = 1  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.devices = 2  # type: ignore[misc]


def test_the_image_limit_is_the_one_served() -> None:
    assert model_spec().image_limit is None
    assert model_spec(serve={"limit_mm_per_prompt": {"video": 0}}).image_limit is None
    assert model_spec(serve={"limit_mm_per_prompt": {"image": 4}}).image_limit == 4


def test_a_prompt_of_the_model_replaces_that_of_the_case() -> None:
    case = Case("document/page-01", DOCUMENT, "Read.")
    other = Case("document/page-02", DOCUMENT, "Read.")
    model = model_spec(prompts={"document": "识别文字:", "document/page-02": "OCR:"})
    assert model.request(case).prompt == "识别文字:"
    assert model.request(other).prompt == "OCR:"
    assert model.request(Case("text/a", TEXT, "Hello")).prompt == "Hello"


LOOSER = {
    "similarity": 0.9,
    "similarity_after_tie": 0.5,
    "logprobs_ratio": 4.0,
    "agreement": 0.9,
    "document_cer": 0.1,
    "document_lines": 0.1,
    "document_numbers": 0.1,
    "document_order": 0.1,
    "box_iou": 0.3,
    "logits_max_abs": 2.0,
    "logits_cosine": 0.99,
    "hidden_max_abs": 2.0,
    "hidden_cosine": 0.99,
    "error_ratio": 2.0,
    "kl_ratio": 3.0,
    "cold_ratio": 0.2,
    "top1_flips": 0.01,
    "prefill_ratio": 30.0,
    "load_scaling": 1.1,
    "slowdown": 1.5,
    "idle_cpu": 0.5,
    "cliff_ratio": 1.6,
    "growth_mib": 0.6,
    "at_once": 64.0,
}
TIGHTER = {
    "similarity_after_tie": 0.95,
    "logprobs_ratio": 2.0,
    "document_cer": 0.0,
    "document_lines": 0.0,
    "document_numbers": 0.0,
    "document_order": 0.0,
    "logits_max_abs": 0.5,
    "logits_cosine": 0.9999,
    "hidden_cosine": 0.9999,
    "error_ratio": 1.2,
    "kl_ratio": 1.5,
    "cold_ratio": 0.05,
    "top1_flips": 0.0,
    "prefill_ratio": 5.0,
    "load_scaling": 4.0,
    "slowdown": 1.05,
    "idle_cpu": 0.1,
    "cliff_ratio": 1.4,
    "growth_mib": 0.4,
}


def test_each_threshold_is_loosened_in_one_direction() -> None:
    names = {field.name for field in dataclasses.fields(Thresholds)} - {"because"}
    assert LOOSER.keys() == names


@pytest.mark.parametrize(("name", "value"), LOOSER.items())
def test_a_looser_threshold_needs_a_reason(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=rf"Thresholds\({name}=...\) is looser"):
        Thresholds(**{name: value})
    assert getattr(Thresholds(**{name: value}, because="issue 7"), name) == value


@pytest.mark.parametrize("name", LOOSER)
@pytest.mark.parametrize("value", ["64", None, True, math.nan, math.inf, -1])
def test_a_threshold_that_is_no_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"Thresholds\({name}=.* a number, 0 or larger"):
        Thresholds(**{name: value}, because="issue 7")


def test_a_reason_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="write the reason as a text"):
        Thresholds(because=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), TIGHTER.items())
def test_a_tighter_threshold_needs_no_reason(name: str, value: float) -> None:
    assert getattr(Thresholds(**{name: value}), name) == value


def test_platforms_in_no_tuple_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"platforms is a tuple, platforms=\('npu',\)"):
        model_spec(platforms="npu")


def test_an_expected_failure_of_an_unknown_criterion_is_refused() -> None:
    expected = (ExpectedFailure("determinsm.repeat", "a typing mistake", "issue 7"),)
    with pytest.raises(ConfigurationError, match=r"determinsm\.repeat"):
        type("TestIt", (Conformance,), {"model": model_spec(expected_failures=expected)})


def test_a_class_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"TestIt\.model must be a ModelSpec"):
        type("TestIt", (Conformance,), {})


def test_a_variant_is_a_subclass_that_changes_the_model() -> None:
    base = type("TestIt", (Conformance,), {"model": model_spec()})
    eager = dataclasses.replace(model_spec(), serve={"enforce_eager": True})
    variant = type("TestEager", (base,), {"model": eager})
    assert isinstance(variant.model, ModelSpec)
    assert variant.model.serve == {"enforce_eager": True}


def test_tests_of_a_models_own_are_allowed() -> None:
    namespace = {"model": model_spec(), "test_mine": lambda _self: None}
    assert type("TestIt", (Conformance,), namespace)


# --- cases ---------------------------------------------------------------------------------------


def write_cases(root: Path, text: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "cases.json").write_text(text, "utf-8")
    return root


def test_a_projects_own_case_replaces_the_one_of_the_same_id(tmp_path: Path) -> None:
    own = write_cases(
        tmp_path / "own", '{"cases": [{"id": "text/a", "needs": "text", "prompt": "你好"}]}'
    )
    shipped = write_cases(
        tmp_path / "shipped",
        '{"cases": [{"id": "text/a", "needs": "text", "prompt": "Hello"},'
        ' {"id": "text/b", "needs": "text", "prompt": "Bye"}]}',
    )
    cases = {case.id: case.prompt for case in load_cases([own, shipped])}
    assert cases == {"text/a": "你好", "text/b": "Bye"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"cases": 3}',
        '{"cases": ["x"]}',
        '{"cases": [{}]}',
        '{"cases": [{"id": "a", "needs": "smell", "prompt": "x"}]}',
        '{"cases": [{"id": "a", "needs": "text", "prompt": "x", "images": ["gone.png"]}]}',
        '{"cases": [{"id": "a", "needs": "text", "prompt": "x", "truth_file": "gone.txt"}]}',
    ],
)
def test_a_damaged_list_of_cases_is_refused_with_its_path(text: str, tmp_path: Path) -> None:
    root = write_cases(tmp_path, text)
    with pytest.raises(ConfigurationError, match=re.escape(str(root / "cases.json"))):
        load_cases([root])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"accepted": "蓝色"}, "'accepted' is '蓝色'. Write a list of texts"),
        ({"accepted": [""]}, "'accepted' is ['']. Write a list of texts"),
        ({"images": "page.png"}, "'images' is 'page.png'. Write a list of file names"),
        ({"videos": [1]}, "'videos' is [1]. Write a list of file names"),
        ({"prompt": ["x"]}, "'prompt' is ['x']. Write a text"),
        ({"needs": "smell"}, "'needs' is 'smell'. Write one of text, image"),
        ({"needs": ["text"]}, "'needs' is ['text']. Write one of text, image"),
        ({"max_tokens": "64"}, "'max_tokens' is '64'. Write a whole number of at least 1"),
        ({"max_tokens": 0}, "'max_tokens' is 0. Write a whole number"),
        ({"max_tokens": True}, "'max_tokens' is True. Write a whole number"),
        ({"box": [0, 0, 9]}, "'box' is [0, 0, 9]. Write [left, top, right, bottom]"),
        ({"box": [9, 0, 0, 9]}, "'box' is [9, 0, 0, 9]. Write [left, top, right, bottom]"),
        ({"full_only": True}, "'full_only' is True. Write the reason"),
        ({"earlier": [{"role": "user", "content": "Hi"}]}, "Write a list of messages"),
        ({"earlier": [{"role": "me", "content": ["Hi"]}]}, "Write a list of messages"),
        ({"earlier": [{"role": "user", "content": [{"img": "a"}]}]}, "Write a list of messages"),
        ({"max_tokns": 512}, "there is no field 'max_tokns'. The fields are id, needs, prompt"),
        ({"truth_file": "gone.txt"}, "'truth_file' names no text in UTF-8"),
        ({"prompt": "<image>"}, "has 0 images, but its prompt has 1"),
        *(
            ({"id": name}, f"'id' is {name!r}. Write <group>/<name>")
            for name in ("text", "text/../../x", "/text/x", "text/a/b", "text\\x", "../x", 3)
        ),
    ],
)
def test_a_mistake_in_a_case_is_told_with_its_entry_and_field(
    fields: dict[str, Any], told: str, tmp_path: Path
) -> None:
    first = {"id": "text/first", "needs": "text", "prompt": "x"}
    wrong = {"id": "text/数-2.b", "needs": "text", "prompt": "x", **fields}
    root = write_cases(tmp_path, json.dumps({"cases": [first, wrong]}))
    with pytest.raises(ConfigurationError, match=re.escape(told)) as caught:
        load_cases([root])
    assert f"{root / 'cases.json'}: entry 2 ({wrong['id']}): " in str(caught.value)


def test_two_cases_of_one_file_have_two_ids(tmp_path: Path) -> None:
    case = {"id": "own-group/数-1", "needs": "text", "prompt": "x"}
    root = write_cases(tmp_path, json.dumps({"cases": [case]}))
    assert [one.group for one in load_cases([root])] == ["own-group"]
    write_cases(root, json.dumps({"cases": [case, {**case, "prompt": "y"}]}))
    with pytest.raises(ConfigurationError, match=r"entry 2 .*another entry has the same id"):
        load_cases([root])


PAGE = (FIXTURES / "documents" / "page-01.png").read_bytes()


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        ("images", None, "does not exist"),
        ("images", b"", "is empty"),
        ("images", b"a text, and no image", "is no image that Pillow can decode (cannot identify"),
        ("images", PAGE[: len(PAGE) // 2], "is no image that Pillow can decode ("),
        ("images", PAGE.replace(b"IDAT", b"IDAT\x00"), "is no image that Pillow can decode ("),
        ("videos", None, "does not exist"),
        ("videos", b"", "is empty"),
    ],
    ids=["missing", "empty", "a text", "cut off", "corrupt", "no video", "empty video"],
)
def test_an_unusable_picture_is_refused_with_its_case_and_file(
    kind: str, content: bytes | None, problem: str, tmp_path: Path
) -> None:
    case = {"id": "image/a", "needs": "image", "prompt": "x", kind: ["the.file"]}
    root = write_cases(tmp_path, json.dumps({"cases": [case]}))
    if content is not None:
        (root / "the.file").write_bytes(content)
    said = f"{root / 'cases.json'}: image/a needs {root / 'the.file'}, which {problem}"
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_cases([root])


def test_a_picture_of_an_earlier_message_is_checked_too(tmp_path: Path) -> None:
    earlier = [{"role": "user", "content": ["What is this?", {"image": "the.file"}]}]
    case = {"id": "image/a", "needs": "image", "prompt": "And now?", "earlier": earlier}
    root = write_cases(tmp_path, json.dumps({"cases": [case]}))
    (root / "the.file").write_bytes(b"a text, and no image")
    said = f"image/a needs {root / 'the.file'}, which is no image that Pillow can decode"
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        load_cases([root])


def test_each_picture_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        {"id": f"image/{name}", "needs": "image", "prompt": "x", "images": ["page.png"]}
        for name in "ab"
    ]
    root = write_cases(tmp_path, json.dumps({"cases": entries}))
    (root / "page.png").write_bytes(PAGE)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    assert len(load_cases([root])) == len(load_cases([root])) == 2
    assert len(opened) == 2  # to verify, and to decode


def test_only_the_picture_of_the_case_that_is_used_is_decoded(tmp_path: Path) -> None:
    text = json.dumps({"cases": [{"id": "image/a", "needs": "text", "prompt": "x"}]})
    own = write_cases(tmp_path / "own", text)
    case = {"id": "image/a", "needs": "image", "prompt": "x", "images": ["damaged.png"]}
    shipped = write_cases(tmp_path / "shipped", json.dumps({"cases": [case]}))
    (shipped / "damaged.png").write_bytes(b"damaged")
    assert [case.images for case in load_cases([own, shipped])] == [()]


def test_the_cases_of_this_repository_are_complete() -> None:
    cases = load_cases([FIXTURES])
    assert {"text", "document"} <= {case.group for case in cases}
    assert all(case.truth for case in cases if case.group == "document")


def test_a_case_survives_its_way_through_json() -> None:
    for case in load_cases([FIXTURES]):
        assert read_case(Path(), json.loads(json.dumps(write_case(case)))) == case


# --- checkpoints ---------------------------------------------------------------------------------


def checkpoint(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_a_tiny_checkpoint_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "tiny" / "small")
    for tiny in ("small", str(path)):
        found = find_checkpoint(model_spec(tiny=tiny), "tiny", Places([tmp_path]))
        assert found.path == path
        assert found.weights_sha256 == weights_digest(path)


def test_the_digest_tells_weights_apart(tmp_path: Path) -> None:
    one, same, other = (
        checkpoint(tmp_path / name, weights)
        for name, weights in (("a", b"1"), ("b", b"1"), ("c", b"2"))
    )
    assert weights_digest(one) == weights_digest(same) != weights_digest(other)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({}, "tiny", "set ModelSpec(tiny=...)"),
        ({"tiny": "gone"}, "tiny", "there is no tiny checkpoint 'gone'"),
        ({}, "full", "--vlm-weights-root=DIR"),
    ],
)
def test_a_missing_checkpoint_is_refused_with_what_to_do(
    fields: dict[str, object], kind: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        find_checkpoint(model_spec(**fields), kind, Places([tmp_path]))


def test_a_missing_full_checkpoint_is_refused_with_the_download(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="modelscope download --model an-org/a-model"):
        find_checkpoint(model_spec(), "full", Places(weights_root=tmp_path))


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a")
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="contains no weights"):
        weights_digest(path)


def test_the_page_of_criteria_names_no_threshold_in_braces() -> None:
    from pytest_ascend_vlm.suite.catalogue import markdown

    assert not re.search(r"\{[a-z]\w*(:[^{}]*)?\}", markdown())


def test_a_changed_number_changes_the_page_of_criteria(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_ascend_vlm.suite.catalogue import markdown

    changed = {**NUMBERS, "rounds": 31, "prefill_ratio": 19.5, "idle_cpu": 0.25}
    monkeypatch.setattr("pytest_ascend_vlm.criteria.criterion.NUMBERS", changed)
    page = markdown()
    assert "31 streamed requests" in page
    assert "at most 19.5 times" in page
    assert "at most 25% of" in page


def test_the_page_of_criteria_is_current() -> None:
    from pytest_ascend_vlm.suite.catalogue import markdown

    page = Path(__file__).parents[1] / "docs" / "criteria.md"
    assert page.read_text("utf-8") == markdown() + "\n", "ascend-vlm criteria > docs/criteria.md"


@pytest.mark.parametrize(
    ("variants", "problem"),
    [
        ((Variant("eager"),), "'eager' changes nothing"),
        ((Variant("two cards", {"seed": 1}),), "one word"),
        ((Variant("a", {"seed": 1}), Variant("a", {"seed": 2})), "and unique"),
        ((Variant("tp2", {"tensor_parallel_size": 2}),), "2 cards in parallel, but devices=1"),
        ((Variant("port", {"port": 1}),), "serve sets port"),
        ((Variant("same", {"dtype": "bfloat16"}),), "'same' changes nothing"),
        ((Variant("none", {"seed": 1}, devices=0),), "devices=0; it needs a card"),
        (
            Variant("a", {"seed": 1}),
            r"not of the type tuple\[Variant, \.\.\.\]. Write variants=\(…,\)",
        ),
        (("eager",), r"variants\[0\] is 'eager', and not of the type Variant"),
        (None, "variants is None, and not"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(variants: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        model_spec(serve={"dtype": "bfloat16"}, variants=variants)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: Variant("nz", env="NZ=0"),
            r"Variant\('nz'\): env is 'NZ=0', and not of the type M",
        ),  # type: ignore[arg-type]
        (lambda: Variant("nz", env={"NZ": 0}), r"env\['NZ'\] is 0, and not of the type str"),  # type: ignore[dict-item]
        (lambda: Variant("a", {"seed": 1}, is_lossy="no"), "is_lossy is 'no', and not of .* bool"),  # type: ignore[arg-type]
        (lambda: model_spec(trust_remote_code="False"), "trust_remote_code is 'False'"),
        (lambda: model_spec(serve="--dtype bfloat16"), "serve is '--dtype bfloat16'"),
        (lambda: model_spec(serve={1: 2}), "a key of serve is 1, and not of the type str"),
        (lambda: model_spec(devices="2"), "devices is '2', and not of the type int"),
        (lambda: model_spec(devices=1.5), "devices is 1.5"),
        (lambda: model_spec(devices=True), "devices is True"),
        (lambda: model_spec(tiny=5), r"tiny is 5, and not of the type str \| None"),
        (lambda: model_spec(prompts={"document": 5}), r"prompts\['document'\] is 5"),
        (lambda: model_spec(prompts={"document": " "}), r"prompts\['document'\] is empty"),
        (lambda: model_spec(budgets=None), "budgets is None"),
        (lambda: model_spec(supports=5), "supports is 5"),
        (lambda: model_spec(box_scale=0), "box_scale=0"),
        (lambda: model_spec(serve={"tensor_parallel_size": 0}), "which is no number of cards"),
        (lambda: ModelSpec(None), r"ModelSpec\(None\): model_id is None"),  # type: ignore[arg-type]
        (lambda: ModelSpec("https://hub/an-org/a-model"), "ORGANISATION/MODEL"),
        (lambda: ModelSpec("a/" + "b" * 300), "ORGANISATION/MODEL"),
        (lambda: Budgets(start="900"), "start='900'"),  # type: ignore[arg-type]
        (lambda: Budgets(graphs=float("nan")), "graphs=nan"),
        (lambda: Limit("image.ttft.median", 2.0, None), "device is None"),  # type: ignore[arg-type]
        (lambda: Thresholds(logprobs_ratio=4.0, because=" "), "State the reason"),
        (lambda: ExpectedFailure("baseline.image", "", ""), "needs the reason"),
        (lambda: ExpectedFailure("baseline.image", "a", "b", seen_in=0.18), "seen_in is 0.18"),  # type: ignore[arg-type]
        (lambda: ExpectedFailure("baseline.image", None, ""), "reason is None"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_means_nothing_is_refused(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        make()


def test_a_capability_is_not_left_out_without_a_reason() -> None:
    unsupported = {**model_spec().unsupported, VIDEO: " "}
    with pytest.raises(ConfigurationError, match=r"no reason for Capability\.VIDEO"):
        model_spec(unsupported=unsupported)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"image": 0}, "serve allows no image, but Capability.IMAGE is in supports"),
        ({"image": -1}, "serve has limit_mm_per_prompt="),
        ({"imgae": 2}, "serve has limit_mm_per_prompt="),
    ],
)
def test_a_model_that_takes_images_gets_some(limits: dict[str, int], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        model_spec(serve={"limit_mm_per_prompt": limits})


@pytest.mark.parametrize(
    "serve",
    [
        {"limit_mm_per_prompt": 5},
        {"limit_mm_per_prompt": {"image": "x"}},
        {"mm_processor_kwargs": {"max_pixels": "big"}},
        {"tensor_parallel_size": "two"},
    ],
)
def test_a_value_of_another_type_is_refused(serve: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"serve has {next(iter(serve))}="):
        model_spec(serve=serve)


def test_a_limit_can_have_the_sizes_to_profile() -> None:
    limit = {"image": {"count": 2, "width": 100, "height": 100}}
    assert model_spec(serve={"limit_mm_per_prompt": limit}).image_limit == 2


def test_a_variant_is_the_model_with_its_own_arguments() -> None:
    model = model_spec(
        tiny="qwen2_vl",
        serve={"seed": 1, "dtype": "bfloat16"},
        variants=(
            Variant("tp2", {"tensor_parallel_size": 2, "seed": 2}, devices=2),
            Variant("w8a8", {"quantization": "ascend"}, checkpoint="an-org/w8a8", is_lossy=True),
            Variant("plain", env={"VLLM_ASCEND_ENABLE_NZ": "0"}, requires=("vllm-ascend",)),
        ),
        requires=("transformers>=5",),
        env={"VLLM_ASCEND_ENABLE_NZ": "1", "HCCL_BUFFSIZE": "512"},
    )
    two_cards, rounded, plain = (model.as_variant(variant) for variant in model.variants)
    assert dict(plain.env) == {"VLLM_ASCEND_ENABLE_NZ": "0", "HCCL_BUFFSIZE": "512"}
    assert (plain.serve, two_cards.env) == (model.serve, model.env)
    assert plain.requires == ("transformers>=5", "vllm-ascend")
    assert dict(two_cards.serve) == {"seed": 2, "dtype": "bfloat16", "tensor_parallel_size": 2}
    assert (two_cards.devices, two_cards.tiny) == (2, "qwen2_vl")
    assert (rounded.model_id, rounded.tiny, rounded.devices) == ("an-org/w8a8", None, 1)
