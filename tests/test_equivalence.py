"""Variants of the serve command: equal behaviour passes, a difference fails and is named."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import replay_vllm
from helpers.catching import seen

from pytest_ascend_vlm.criteria import equivalence as rules
from pytest_ascend_vlm.observation.answers import Completion, Reference, TopLogprobs

ROOT = Path(__file__).parent.parent
MODEL = """
from pytest_ascend_vlm import Capability as C, ModelSpec, Variant, VLMConformance

class TestOwn(VLMConformance):
    model = ModelSpec(
        "OpenDataLab/MinerU2.5-2509-1.2B",
        tiny="qwen2_vl",
        serve={"limit_mm_per_prompt": {"image": 1, "video": 0}},
        variants=(
            Variant("sound", {"seed": 7}),
            Variant("noisy", {"async_output": True}),
            Variant("rounded", {"quantization": "ascend"}, is_lossy=True),
            Variant("same", {"enforce_eager": True}),
            Variant("cached", {"enable_prefix_caching": True}),
            Variant("whole", {"enable_chunked_prefill": False}),
            Variant("newer", {"seed": 8}, requires=("vllm-ascend>=99",)),
            Variant("of_env", env={"VLLM_LOGGING_LEVEL": "DEBUG"}),
            Variant("of_ascend", env={"VLLM_ASCEND_ENABLE_NZ": "0"}),
            Variant("w8a8", {"quantization": "ascend"}, checkpoint="an-org/w8a8", is_lossy=True),
        ),
        supports={C.TEXT, C.IMAGE, C.DOCUMENT},
        unsupported=dict.fromkeys((C.VIDEO, C.VQA, C.GROUNDING), "documents only"),
        prompts={"document": "Extract all text from this document image."},
    )
"""
# The engine of the stub caches, quantizes and chunks, whatever its arguments are.
LOG = (
    (Path(__file__).parent / "logs" / "serving" / "018.log")
    .read_text("utf-8")
    .replace("enable_prefix_caching=False", "enable_prefix_caching=True")
    .replace("quantization=None", "quantization=ascend")
)
DEFECTS = {"--async-output": "LOGPROBS_ARE_NOISY", "--quantization": "A_DIGIT_IS_WRONG"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a run of every variant, base first."""
    project = tmp_path_factory.mktemp("project")
    (project / "test_own.py").write_text(MODEL, "utf-8")
    (project / "pytest.ini").write_text("[pytest]\n", "utf-8")
    root = replay_vllm.install(project / "stub")
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "STUB_ROOT": str(ROOT),
        "STUB_DEFECTS": json.dumps(DEFECTS),
        "STUB_LOG": LOG,
    }
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--vlm-platform=cpu"),
        *(
            "--vlm-checkpoint=tiny",
            "--vlm-report=report",
            "-k",
            "variant or logits_match or capital",
        ),
    ]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    path = project / "report" / "report.json"
    assert path.is_file(), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def rows(report: dict[str, Any], variant: str) -> dict[str, dict[str, Any]]:
    criterion = f"equivalence.{variant}"
    own = [row for row in seen(report)["rows"] if row["criterion"] == criterion]
    return {row["case"].removeprefix(f"{variant}-"): row for row in own}


def test_a_sound_variant_passes(report: dict[str, Any]) -> None:
    found = rows(report, "sound")
    assert {row["status"] for row in found.values()} == {"pass"}
    assert found["answers"]["finding"].startswith("18 of 18 answers are equal")


@pytest.mark.catches("equivalence.<variant>")
def test_numbers_that_are_off_are_caught_where_answers_are_not(report: dict[str, Any]) -> None:
    found = rows(report, "noisy")
    assert found["answers"]["status"] == "pass"
    assert found["error_ratio"]["status"] == "fail"


def test_a_variant_that_rounds_on_purpose_has_to_be_alike(report: dict[str, Any]) -> None:
    found = rows(report, "rounded")
    assert found["error_ratio"]["status"] == "pass"
    assert found["error_ratio"]["threshold"] == "inf"
    assert found["answers"]["unit"] == "similarity"
    assert 0.9 < found["answers"]["measured"] < 1.0


def test_the_evidence_of_a_variants_mode_is_in_the_report(report: dict[str, Any]) -> None:
    served = [row["evidence"]["served"] for row in rows(report, "cached").values()]
    assert {one["enable_prefix_caching"] for one in served} == {"True (enable_prefix_caching=True)"}
    assert all(int(one["cached tokens"].split()[0]) > 100 for one in served)
    assert {row["status"] for row in rows(report, "cached").values()} == {"pass"}


def test_a_variant_that_is_not_served_as_declared_is_an_error(report: dict[str, Any]) -> None:
    for row in rows(report, "whole").values():
        assert row["status"] == "error"
        assert "enable_chunked_prefill has to be False, but vLLM 0.18.0 tells True" in row["reason"]


def test_what_says_nothing_here_is_not_applicable(report: dict[str, Any]) -> None:
    assert "it needs vllm-ascend>=99" in rows(report, "newer")["answers"]["reason"]
    for name in ("same", "of_ascend"):
        assert "the variant is served like the model" in rows(report, name)["answers"]["reason"]
    weights = "the variant has weights of its own, and no tiny checkpoint"
    assert weights in rows(report, "w8a8")["answers"]["reason"]


def test_the_models_own_server_is_started_once_and_each_variant_once(
    report: dict[str, Any],
) -> None:
    (model,) = report["models"]
    assert model["server_starts"] == 1
    assert set(model["variants"]) == {"sound", "noisy", "rounded", "cached", "whole", "of_env"}
    assert report["receipt"]["server_starts"] == 7
    assert "VLLM_LOGGING_LEVEL=DEBUG" in model["variants"]["of_env"]["serve_command"]
    assert "--seed 7" in model["variants"]["sound"]["serve_command"]


def completion(tokens: list[int], top: TopLogprobs | None = None) -> Completion:
    return Completion("text/capital-zh", "巴黎", tuple(tokens), "stop", None, top, seconds=0.1)


def verdict_of(preferred_by: float) -> Any:
    import numpy as np
    from helpers.goldens import answer

    ids = np.array([[1, 9], [2, 9]])
    top = TopLogprobs(ids, np.array([[-0.1, -5.0], [-0.1, -0.1 - preferred_by]]))
    case = "text/capital-zh"
    reference: Reference = answer(case_id=case)
    return rules.judge_answers(
        {case: completion([1, 2], top)}, {case: completion([1, 9])}, {case: reference}
    )


@pytest.mark.parametrize(("text", "passes"), [("巴黎", True), ("北京", False)])
def test_without_tokens_the_texts_are_compared(text: str, passes: bool) -> None:
    from helpers.goldens import answer

    case = "text/capital-zh"
    expected, got = (
        dataclasses.replace(completion([]), token_ids=None, text=one) for one in ("巴黎", text)
    )
    verdict = rules.judge_answers({case: expected}, {case: got}, {case: answer(case_id=case)})
    assert verdict.passed is passes


def test_only_a_near_tie_of_the_served_model_is_excused() -> None:
    assert verdict_of(preferred_by=0.1).passed
    assert "1 diverge at near-ties" in verdict_of(preferred_by=0.1).reason
    sure = verdict_of(preferred_by=3.0)
    assert not sure.passed
    assert "token 2" in sure.details[0]
    assert "3 nats" in sure.details[0]
