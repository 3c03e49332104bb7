"""Rules of images that are computed again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_criteria_numerics import golden, off_by, seen

from pytest_ascend_vlm.criteria import recomputed
from pytest_ascend_vlm.criteria.comparison import CaseComparison, compare_logits
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Completion
from pytest_ascend_vlm.observation.caches import CacheUse
from pytest_ascend_vlm.observation.numerics import ReferenceNumerics

IMAGE_START = 2
UNUSED = CacheUse(4, 0, 100, 0)


def computed(
    numerics: ReferenceNumerics, noise: float, *, first: int = 0, seed: int = 1
) -> CaseComparison:
    """A computation whose logits have noise, in bf16 roundings, from a position on."""
    values = off_by(1.0, numerics)
    rounding = np.sqrt(np.square(numerics.bf16 - numerics.fp32).mean())
    error = np.random.default_rng(seed).normal(0, noise * rounding, values.shape)
    error[:first] = 0
    return compare_logits(seen(numerics, values + error), numerics)


@given(st.integers(0, 99), st.sampled_from([0.0, 0.02, 0.5, float("nan")]))
def test_a_tenth_of_a_rounding_is_the_most_that_two_computations_may_differ(
    seed: int, noise: float
) -> None:
    numerics = golden(seed)
    runs = {"image/a": [computed(numerics, 0.0), computed(numerics, noise)]}
    verdict = recomputed.judge_cold(runs, 0.1, UNUSED)
    assert verdict.passed == (noise <= 0.02)


def test_the_message_says_that_the_difference_comes_in_with_the_image() -> None:
    numerics = golden()
    still = computed(numerics, 0.0)
    with_image = {"image/a": [still, computed(numerics, 1.0, first=IMAGE_START)]}
    verdict = recomputed.judge_cold(with_image, 0.1, UNUSED)
    assert "look at the vision tower" in "\n".join(verdict.details)
    without_numbers = {"image/a": [still, computed(numerics, float("nan"), first=IMAGE_START)]}
    verdict = recomputed.judge_cold(without_numbers, 0.1, UNUSED)
    assert "look at the vision tower" in "\n".join(verdict.details)
    everywhere = {"image/a": [still, computed(numerics, 1.0)]}
    verdict = recomputed.judge_cold(everywhere, 0.1, UNUSED)
    assert "look at the kernels of the language model" in "\n".join(verdict.details)
    assert "0 hits for 4 images" in verdict.evidence["cold"]
    assert "no counters" in recomputed.judge_cold(everywhere, 9, None).evidence["cold"]


def test_images_from_a_cache_give_no_verdict() -> None:
    runs = {"image/a": [computed(golden(), 0.0)] * 2}
    with pytest.raises(PreconditionError, match="took 1 of 4 images from its cache"):
        recomputed.judge_cold(runs, 0.1, dataclasses.replace(UNUSED, image_hits=1))


def test_logits_in_company_may_differ_by_rounding_and_no_more() -> None:
    numerics = golden()
    alone = computed(numerics, 0.0)
    near, far = computed(numerics, 1.0), computed(numerics, 3.0)
    assert recomputed.judge_batched([(alone, alone), (alone, near)], 1.5, UNUSED).passed
    verdict = recomputed.judge_batched([(alone, near), (alone, far)], 1.5, None)
    assert not verdict.passed
    assert verdict.reason.startswith("1 of 2 new images")


def answered(case_id: str, text: str) -> Completion:
    return Completion(case_id, text, tuple(text.encode()), "stop", None, None, seconds=0.1)


def test_the_answer_of_another_image_is_named() -> None:
    alone = {name: answered(name, f"{name} is what it says") for name in ("a/1", "b/2")}
    right = [answered("a/1", "a/1 is"), answered("b/2", "b/2 is")]
    assert recomputed.judge_batched_answers(alone, right, UNUSED).passed
    exchanged = [right[0], answered("b/2", "a/1 is")]
    verdict = recomputed.judge_batched_answers(alone, exchanged, UNUSED)
    assert (verdict.passed, verdict.measured) == (False, 0.5)
    assert verdict.details[0].startswith("b/2 got the answer of a/1: ")
    neither = [right[0], answered("b/2", "zz")]
    verdict = recomputed.judge_batched_answers(alone, neither, UNUSED)
    assert verdict.details[0] == "the first difference is in b/2:"
