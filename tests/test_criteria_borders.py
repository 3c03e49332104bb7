"""Rules of numerics.borders."""

from __future__ import annotations

import dataclasses
import math

import pytest
from helpers.paths import FIXTURES
from test_criteria_numerics import CASE, PROMPT, generated, golden, off_by, seen

from pytest_ascend_vlm import Thresholds
from pytest_ascend_vlm.criteria.borders import judge_chunks, judge_hit
from pytest_ascend_vlm.criteria.generation import list_difference
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Reference, Usage
from pytest_ascend_vlm.session.borders import overflow, smaller, unanswered
from pytest_ascend_vlm.spec.case_files import load_cases

NUMERICS = golden()
IMAGE_TOKEN = 9
PROMPT_IDS = tuple(
    IMAGE_TOKEN if position in range(2, 8) else position + 100 for position in range(PROMPT)
)
REFERENCE = Reference(
    CASE, "recorded", "", prompt_token_ids=PROMPT_IDS, token_ids=(), numerics=NUMERICS
)


def test_the_largest_error_of_all_prompts_counts() -> None:
    right = (seen(NUMERICS, off_by(1.0, NUMERICS)), NUMERICS)
    wrong = (seen(NUMERICS, off_by(3.0, NUMERICS)), NUMERICS)
    assert judge_chunks([right, right]).passed
    verdict = judge_chunks([right, wrong, right])
    assert (verdict.passed, verdict.measured) == (False, pytest.approx(3.0))
    assert "borders are behind every 64 tokens" in verdict.details[0]


def test_numbers_that_are_none_count_as_the_largest_error_wherever_they_are() -> None:
    right = (seen(NUMERICS, off_by(1.0, NUMERICS)), NUMERICS)
    none = (seen(NUMERICS, off_by(float("nan"), NUMERICS)), NUMERICS)
    for pairs in ([none, right], [right, none], [right, none, right]):
        verdict = judge_chunks(pairs)
        assert not verdict.passed
        assert math.isnan(verdict.measured)


def test_images_that_the_server_has_no_room_for_are_named() -> None:
    right = (seen(NUMERICS, off_by(1.0, NUMERICS)), NUMERICS)
    verdict = judge_chunks([right], ["size/a4: HTTP 400: no room"])
    assert verdict.passed
    assert verdict.reason.endswith("; the server has no room for 1 more")
    assert "not judged: size/a4: HTTP 400: no room" in verdict.details
    refused = ["size/a4: HTTP 400: no room", "size/odd: HTTP 400: no room"]
    for compared in ([], [right]):
        with pytest.raises(PreconditionError, match=r"size/a4"):
            judge_chunks(compared, refused)


@pytest.mark.parametrize(("factor", "passes"), [(0.02, True), (1.0, False)])
def test_a_hit_gives_the_numbers_of_a_prompt_that_was_computed(factor: float, passes: bool) -> None:
    cold = generated(NUMERICS, NUMERICS.fp32, NUMERICS.token_ids)
    hit = generated(NUMERICS, off_by(factor, NUMERICS), NUMERICS.token_ids)
    hit = dataclasses.replace(hit, usage=Usage(PROMPT, 8, PROMPT + 8, cached_tokens=4))
    verdict = judge_hit(hit, cold, REFERENCE, Thresholds())
    assert verdict.passed == passes
    assert "4 cached tokens; the image is at tokens 3 to 8" in verdict.reason


@pytest.mark.parametrize(
    ("cached", "problem"),
    [
        (None, "reported no cached tokens"),
        (0, "reported no cached tokens"),
        (2, "only the 2 tokens before the image"),
    ],
)
def test_without_a_hit_in_the_image_there_is_no_verdict(cached: int | None, problem: str) -> None:
    answer = generated(NUMERICS, NUMERICS.fp32, NUMERICS.token_ids)
    hit = dataclasses.replace(answer, usage=Usage(PROMPT, 8, PROMPT + 8, cached_tokens=cached))
    with pytest.raises(PreconditionError, match=problem):
        judge_hit(hit, answer, REFERENCE, Thresholds())


def test_answers_that_part_are_compared_up_to_there() -> None:
    cold = generated(NUMERICS, NUMERICS.fp32, NUMERICS.token_ids)
    other = (*NUMERICS.token_ids[:2], 0, *NUMERICS.token_ids[3:])
    hit = generated(NUMERICS, NUMERICS.fp32, other)
    hit = dataclasses.replace(hit, usage=Usage(PROMPT, 8, PROMPT + 8, cached_tokens=4))
    verdict = judge_hit(hit, cold, REFERENCE, Thresholds())
    assert "log-probabilities of 3 generated tokens" in verdict.reason


def test_without_log_probabilities_there_is_no_verdict() -> None:
    cold = generated(NUMERICS, NUMERICS.fp32, NUMERICS.token_ids)
    usage = Usage(PROMPT, 8, PROMPT + 8, cached_tokens=4)
    hit = dataclasses.replace(cold, usage=usage, top=None)
    with pytest.raises(PreconditionError, match="listed no log-probabilities"):
        judge_hit(hit, cold, REFERENCE, Thresholds())


def test_a_cold_answer_from_a_cache_is_no_evidence() -> None:
    answer = generated(NUMERICS, NUMERICS.fp32, NUMERICS.token_ids)
    hit = dataclasses.replace(answer, usage=Usage(PROMPT, 8, PROMPT + 8, cached_tokens=4))
    with pytest.raises(PreconditionError, match="4 prompt tokens came from the prefix cache"):
        judge_hit(hit, hit, REFERENCE, Thresholds())


@pytest.mark.parametrize(
    ("release", "not_asked"),
    [("0.13.0", {"size/a4", "size/a4-grey"}), ("0.16.0", set()), ("0.32.0", set())],
)
def test_an_engine_that_would_never_answer_is_not_asked(
    release: str, not_asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_ascend_vlm.versions.installed_vllm", lambda: release)
    sizes = [case for case in load_cases((FIXTURES,)) if case.group == "size"]
    assert {case.id for case in unanswered(sizes)} == not_asked


def test_a_crowd_has_no_image_that_the_server_has_no_room_for() -> None:
    sizes = [case for case in load_cases((FIXTURES,)) if case.group == "size"]
    large = [case for case in sizes if case.id == "size/a4"]
    assert smaller(sizes, []) == sizes
    left_out = {case.id for case in sizes} - {case.id for case in smaller(sizes, large)}
    assert left_out == {"size/a4", "size/a4-grey"}


def test_a_cache_is_full_if_the_requests_that_run_at_a_time_do_not_fit() -> None:
    assert not overflow([1] * 20, 8)  # eight run at a time
    assert overflow([1] * 19 + [2], 8)
    assert not overflow([], 8)


def test_lists_that_share_little_differ_much() -> None:
    one = {1: -0.1, 2: -3.0, 3: -4.0, 4: -5.0}
    assert list_difference(one, one) == 0
    assert list_difference(one, {**one, 2: -3.2}) == pytest.approx(0.08, abs=0.04)
    only_the_last = {4: -0.1, 7: -3.0, 8: -4.0, 9: -5.0}
    assert list_difference(one, only_the_last) > 1
    assert list_difference(dict(list(one.items())[:2]), one) == pytest.approx(0, abs=1e-9)
    for cut in ({}, {1: -0.1}, {7: -0.1}):
        with pytest.raises(PreconditionError, match=f"only {len(cut)} log-probabilities"):
            list_difference(one, cut)
