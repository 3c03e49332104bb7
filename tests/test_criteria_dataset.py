"""Rules of dataset.*: scores that pass, scores that fail, and too few samples for a verdict."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from pytest_ascend_vlm.criteria.dataset import (
    judge_paired,
    judge_published,
    lower_bound,
    require_same_protocol,
)
from pytest_ascend_vlm.errors import ConfigurationError, GoldenError, PreconditionError
from pytest_ascend_vlm.golden import scores
from pytest_ascend_vlm.golden.store import GoldenKey
from pytest_ascend_vlm.observation.evaluation import Evaluation, Protocol, Sample
from pytest_ascend_vlm.spec.case import Capability
from pytest_ascend_vlm.spec.dataset import DatasetTask, PublishedScore
from pytest_ascend_vlm.spec.model import ModelSpec
from pytest_ascend_vlm.spec.thresholds import PUBLISHED_BLIND_SPOT

LM_EVAL = Protocol("lm_eval", "0.4.13", "mmmu_val", "acc", "d" * 64)
QWEN3_8B = PublishedScore(0.5389, 900, "lm_eval", "the Qwen-VL tutorial", stderr=0.0159)
QWEN25_32B = PublishedScore(0.5744, 900, "lm_eval", "the Qwen-VL tutorial", stderr=0.0158)
INTERNVL = PublishedScore(0.363, 900, "lm_eval", "the InternVL2-2B model card")


def evaluation(values: list[float], protocol: Protocol = LM_EVAL, **facts: object) -> Evaluation:
    samples = {
        f"s/{number}": Sample(value, f"part {number % 2}", "p", "答案是 B", "B")
        for number, value in enumerate(values)
    }
    return Evaluation(protocol, samples, **{"total": len(samples), **facts})  # type: ignore[arg-type]


def right(count: int, of: int) -> Evaluation:
    return evaluation([1.0] * count + [0.0] * (of - count))


def pair(lost: int, won: int, of: int = 900) -> tuple[Evaluation, Evaluation]:
    """A reference and a model that differ in this many lost and won samples."""
    same = of - lost - won
    before = [1.0] * lost + [0.0] * won + [1.0] * same
    after = [0.0] * lost + [1.0] * won + [1.0] * same
    return evaluation(before), evaluation(after)


# --- published scores ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "correct"),
    [(INTERNVL, 329), (QWEN3_8B, 485), (QWEN25_32B, 517)],
    ids=["36.6 against 36.3", "0.5389 again", "0.5744 again"],
)
def test_the_published_pairs_pass(published: PublishedScore, correct: int) -> None:
    verdict = judge_published(published, right(correct, 900))
    assert verdict.passed
    assert "not significantly worse" in verdict.reason
    assert "cannot be detected" in verdict.reason
    assert "all 900 samples" in verdict.reason


@pytest.mark.parametrize("published", [QWEN3_8B, QWEN25_32B])
def test_a_drop_to_forty_five_fails(published: PublishedScore) -> None:
    verdict = judge_published(published, right(405, 900))
    assert not verdict.passed
    assert verdict.reason.startswith("worse")
    assert verdict.margin < 0


def test_the_blind_spot_is_that_of_both_standard_errors() -> None:
    verdict = judge_published(QWEN3_8B, right(485, 900))
    ours = math.sqrt(0.5389 * 0.4611 / 900)
    assert verdict.evidence["blind_spot"] == pytest.approx(
        1.645 * math.hypot(0.0159, ours), abs=1e-4
    )
    assert verdict.evidence["blind_spot"] < PUBLISHED_BLIND_SPOT


@pytest.mark.parametrize("score", [3, 4, 5])
def test_five_samples_say_nothing_about_a_published_score(score: int) -> None:
    with pytest.raises(PreconditionError, match="too few samples for a verdict"):
        judge_published(QWEN3_8B, right(score, 5))


def test_a_score_much_better_than_published_passes() -> None:
    assert judge_published(QWEN3_8B, right(800, 900)).passed


@pytest.mark.parametrize(
    "protocol",
    [
        dataclasses.replace(LM_EVAL, harness="evalscope"),
        dataclasses.replace(LM_EVAL, version="0.5.0"),
    ],
)
def test_a_published_score_of_another_harness_is_refused(protocol: Protocol) -> None:
    published = dataclasses.replace(QWEN3_8B, version="0.4.13")
    with pytest.raises(PreconditionError, match="do not compare"):
        judge_published(published, evaluation([1.0] * 900, protocol))
    assert judge_published(published, right(485, 900)).passed


# --- sample by sample ------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (20, 20), (24, 20), (5, 60), (1, 0)])
def test_a_score_as_good_as_the_reference_s_passes(lost: int, won: int) -> None:
    verdict = judge_paired(*pair(lost, won))
    assert verdict.passed
    assert f"{lost} samples lost, {won} won" in verdict.reason
    assert "95 % confidence" in verdict.reason


@pytest.mark.parametrize(("lost", "won"), [(40, 5), (30, 0), (90, 30)])
def test_a_score_worse_than_the_reference_s_fails(lost: int, won: int) -> None:
    verdict = judge_paired(*pair(lost, won))
    assert not verdict.passed
    assert verdict.measured < verdict.threshold == -0.02
    assert "the target is 'B'" in verdict.details[0]
    flips = verdict.evidence["flips"]
    assert len(flips) == lost + won
    assert flips[0]["answer"] == "答案是 B"


@pytest.mark.parametrize(
    ("pair_of", "says"),
    [
        (pair(0, 0, of=100), "About 1[0-9][0-9] samples"),
        (pair(3, 3, of=60), "About [0-9]+ samples"),
        (pair(65, 60), "About [0-9]{4} samples"),
        (pair(3, 0, of=20), "No number of samples"),
    ],
)
def test_too_few_samples_for_a_verdict_are_an_error(
    pair_of: tuple[Evaluation, Evaluation], says: str
) -> None:
    with pytest.raises(PreconditionError, match=says):
        judge_paired(*pair_of)


def test_a_wider_margin_needs_fewer_samples() -> None:
    assert judge_paired(*pair(0, 0, of=100), tolerance=0.05).passed


def test_a_bound_of_losses_alone_is_the_exact_one() -> None:
    """Clopper and Pearson's bound: without a loss among n it is 1 - 0.05 ** (1 / n)."""
    for samples in (20, 149, 900):
        exact = 0.05 ** (1 / samples) - 1
        assert lower_bound(np.zeros(samples)) == pytest.approx(exact, rel=0.03)


def test_a_bound_of_many_values_is_the_normal_one() -> None:
    values = np.array([-1.0] * 70 + [1.0] * 70 + [0.0] * 860)
    normal = -1.645 * math.sqrt(140) / 1000
    assert lower_bound(values) == pytest.approx(normal - 0.001, abs=0.0005)


@pytest.mark.parametrize("judged", ["pair", "published"])
def test_a_score_has_its_own_standard_error(judged: str) -> None:
    """Right or wrong it is the binomial one; a score in between varies less."""

    def error(values: list[float]) -> float:
        served = evaluation(values)
        if judged == "pair":
            return float(judge_paired(served, served).evidence["score_standard_error"])
        return float(judge_published(INTERNVL, served).evidence["score_standard_error"])

    binomial = math.sqrt(329 / 900 * 571 / 900 / 900)
    assert error([1.0] * 329 + [0.0] * 571) == pytest.approx(binomial, abs=1e-5)
    assert error([0.5] * 658 + [0.0] * 242) == pytest.approx(0.00739, abs=1e-5)


def test_the_standard_error_is_that_of_discordant_pairs() -> None:
    verdict = judge_paired(*pair(20, 18))
    expected = math.sqrt(38 - (20 - 18) ** 2 / 900) / 900
    assert verdict.evidence["standard_error"] == pytest.approx(expected, abs=1e-5)


def test_graded_scores_count_by_their_size() -> None:
    before = evaluation([1.0] * 900)
    assert judge_paired(before, evaluation([0.99] * 900)).passed
    assert not judge_paired(before, evaluation([0.9] * 900)).passed


def test_categories_are_counted_one_by_one() -> None:
    verdict = judge_paired(*pair(1, 0))
    assert verdict.evidence["categories"]["part 0"] == {
        "samples": 450,
        "score": pytest.approx(449 / 450, abs=1e-5),
        "reference": 1.0,
    }


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Protocol)])
def test_scores_of_another_kind_are_refused(field: str) -> None:
    other = dataclasses.replace(LM_EVAL, **{field: "other"})
    with pytest.raises(PreconditionError, match=f"{field}.*other"):
        judge_paired(evaluation([1.0] * 900), evaluation([1.0] * 900, other))
    require_same_protocol(LM_EVAL, LM_EVAL)


def test_another_prompt_is_refused() -> None:
    reference, found = pair(0, 0)
    asked = {id_: dataclasses.replace(s, prompt="other") for id_, s in found.samples.items()}
    with pytest.raises(PreconditionError, match="another prompt"):
        judge_paired(reference, dataclasses.replace(found, samples=asked))


def test_samples_that_the_reference_lacks_are_refused() -> None:
    with pytest.raises(PreconditionError, match="not in it"):
        judge_paired(right(500, 899), right(500, 900))


def test_a_subset_is_named() -> None:
    reference = right(900, 900)
    subset = dataclasses.replace(right(300, 300), total=900, limit=10)
    verdict = judge_paired(reference, subset)
    assert "A SUBSET, 300 of 900 samples" in verdict.reason
    assert verdict.evidence["subset"] is True
    assert verdict.evidence["finding"] == verdict.reason  # a report shows reasons of failures only


# --- declarations ----------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "samples"), [(36.3, 900), (-0.1, 900), (0.3, 0)])
def test_a_score_is_a_rate(value: float, samples: int) -> None:
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        PublishedScore(value, samples, "lm_eval", "a document")


def test_a_wider_margin_needs_a_reason() -> None:
    with pytest.raises(ConfigurationError, match="because"):
        DatasetTask("mmmu_val", tolerance=0.05)
    DatasetTask("mmmu_val", tolerance=0.05, because="answers are sampled")
    DatasetTask("mmmu_val", tolerance=0.01)


# --- recorded scores -------------------------------------------------------------------------

MODEL = ModelSpec(
    "组织/模型", supports=set(Capability) - {Capability.VIDEO}, unsupported={Capability.VIDEO: "no"}
)
KEY = GoldenKey(MODEL, "tiny", "w" * 64)
ENGINE = {
    "platform": "cuda",
    "device": "一块卡",
    "versions": {"vllm": "0.32.0"},
    "serve_command": "vllm serve",
}


def test_a_recorded_evaluation_is_read_back_unchanged(tmp_path: Path) -> None:
    found = evaluation([1.0, 0.25, 0.0])
    path = scores.record(tmp_path, KEY, "mmmu_val", found, ENGINE)
    assert path == tmp_path / "组织--模型" / "tiny" / "dataset" / "mmmu_val.json"
    read = scores.load([tmp_path / "none", tmp_path], KEY, "mmmu_val", "pytest --vlm-record")
    assert read is not None
    assert read.protocol == found.protocol
    assert {i: s.score for i, s in read.samples.items()} == {
        i: s.score for i, s in found.samples.items()
    }
    assert read.engine == "cuda (一块卡; vllm 0.32.0)"
    assert scores.load([tmp_path], KEY, "docvqa_val", "") is None


def test_a_subset_is_no_reference(tmp_path: Path) -> None:
    subset = dataclasses.replace(right(3, 3), total=900, limit=3)
    with pytest.raises(GoldenError, match="A SUBSET"):
        scores.record(tmp_path, KEY, "mmmu_val", subset, ENGINE)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[:-9], "cannot be read"),
        (lambda text: text.replace('"schema": 1', '"schema": 9'), "do not have schema 1"),
        (lambda text: text.replace("[1.0,", "[0.0,", 1), "changed after"),
        (lambda _: "[]", "do not have schema 1"),
    ],
)
def test_damaged_scores_are_an_error(tmp_path: Path, damage: object, says: str) -> None:
    path = scores.record(tmp_path, KEY, "mmmu_val", right(2, 3), ENGINE)
    path.write_text(damage(path.read_text("utf-8")), "utf-8")  # type: ignore[operator]
    with pytest.raises(GoldenError, match=says) as caught:
        scores.load([tmp_path], KEY, "mmmu_val", "pytest FILE --vlm-record")
    assert "pytest FILE --vlm-record" in str(caught.value)


def test_scores_of_other_weights_are_an_error(tmp_path: Path) -> None:
    path = scores.record(tmp_path, KEY, "mmmu_val", right(2, 3), ENGINE)
    assert json.loads(path.read_text("utf-8"))["provenance"]["weights_sha256"] == "w" * 64
    with pytest.raises(GoldenError, match="other weights"):
        scores.load([tmp_path], dataclasses.replace(KEY, weights_sha256="x"), "mmmu_val", "")
    unseen = dataclasses.replace(KEY, weights_sha256=None)
    assert scores.load([tmp_path], unseen, "mmmu_val", "") is not None
