"""Rules of growth.*: which series of memory are leaks, and which answers are those of before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm.criteria.growth import (
    judge_answers,
    judge_device,
    judge_host,
    slope_of,
)
from pytest_ascend_vlm.criteria.verdict import Verdict
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Completion
from pytest_ascend_vlm.observation.caches import CacheUse
from pytest_ascend_vlm.observation.soak import Soak

MiB = npt.NDArray[np.floating[Any]]
MAXIMUM = 0.5
IMAGES = 200
TIME = np.arange(IMAGES)
WARM_UP = 2000 + 300 * (1 - np.exp(-TIME / 30))
SEEDS = st.integers(0, 999)


def noise(seed: int, size: float = 20.0) -> MiB:
    return np.random.default_rng(seed).uniform(-size, size, IMAGES)


def soak(device: Sequence[float] | MiB = (), **more: Any) -> Soak:
    return dataclasses.replace(Soak(IMAGES, (), tuple(map(float, device)), {}, {}, {}), **more)


def judged(memory: Sequence[float] | MiB) -> Verdict:
    return judge_device(soak(memory), MAXIMUM)


# --- memory --------------------------------------------------------------------------------------


@given(SEEDS)
def test_a_leak_of_one_mib_is_seen_under_noise(seed: int) -> None:
    verdict = judged(WARM_UP + TIME + noise(seed))
    assert not verdict.passed
    assert verdict.measured == pytest.approx(1.0, abs=0.3)


@given(SEEDS)
def test_memory_that_levels_off_under_noise_is_none(seed: int) -> None:
    verdict = judged(WARM_UP + noise(seed))
    assert verdict.passed
    assert abs(verdict.measured) < 0.3


@given(SEEDS, st.integers(2, 15), st.integers(0, 14), st.floats(0, 20))
def test_garbage_that_is_collected_now_and_then_is_none(
    seed: int, period: int, phase: int, height: float
) -> None:
    verdict = judged(WARM_UP + height * ((TIME + phase) % period) / period + noise(seed, 1.0))
    assert verdict.passed


@given(SEEDS, st.floats(0, 1000), st.integers(0, IMAGES - 1))
def test_a_single_peak_or_gap_has_no_effect(seed: int, height: float, place: int) -> None:
    memory = WARM_UP + noise(seed, 5.0)
    memory[place] += height
    assert judged(memory).passed
    memory[place] -= 2 * height
    assert judged(memory).passed


@given(SEEDS, st.lists(st.integers(0, IMAGES // 2), max_size=8), st.floats(0, 500))
def test_steps_of_the_warm_up_are_none(seed: int, places: list[int], height: float) -> None:
    steps = sum((height * (place <= TIME) for place in places), start=0 * TIME)
    assert judged(2000 + steps + noise(seed, 2.0)).passed


@given(SEEDS)
def test_a_small_step_late_is_none(seed: int) -> None:
    place = np.random.default_rng(seed).integers(IMAGES // 2, IMAGES)
    assert judged(WARM_UP + 10 * (place <= TIME) + noise(seed, 1.0)).passed


@given(SEEDS, st.floats(2, 50))
def test_memory_that_shrinks_passes(seed: int, slope: float) -> None:
    assert judged(20_000 - slope * TIME + noise(seed)).passed


@pytest.mark.parametrize(
    "memory",
    [
        WARM_UP + 2 * (TIME % 60),
        WARM_UP + noise(1, 300.0),
        WARM_UP + MAXIMUM * TIME + noise(1),
        WARM_UP + 64 * (TIME >= 150),
    ],
    ids=["a long period", "much noise", "as the threshold", "a large step late"],
)
def test_what_cannot_be_told_is_an_error_that_asks_for_more(memory: MiB) -> None:
    with pytest.raises(PreconditionError, match="use a larger --vlm-soak"):
        judged(memory)


def test_more_images_decide() -> None:
    time = np.arange(10 * IMAGES)
    sawtooth = 2000 + 2 * (time % 60)
    assert judge_device(soak(sawtooth), MAXIMUM).passed
    assert not judge_device(soak(sawtooth + time), MAXIMUM).passed


def test_the_slope_of_a_line_is_exact() -> None:
    for count in (100, 101, 119, 200, 1000):
        slope = slope_of([3.0 * number for number in range(count)])
        assert (slope.low, slope.value, slope.high) == pytest.approx((3, 3, 3))


def test_only_the_second_half_counts() -> None:
    late = np.maximum(TIME - IMAGES // 2, 0)
    assert slope_of((4.0 * late).tolist()).value == pytest.approx(4)
    assert slope_of((4.0 * np.minimum(TIME, IMAGES // 2)).tolist()).value == 0


def test_the_interval_contains_the_slope_in_about_95_of_100_series() -> None:
    contained = [
        (slope := slope_of(np.random.default_rng(seed).normal(0, 10, IMAGES).tolist())).low
        <= 0
        <= slope.high
        for seed in range(400)
    ]
    assert 0.9 <= np.mean(contained) <= 0.99


def of_processes(engine: MiB, server: MiB) -> Soak:
    pairs = zip(engine.tolist(), server.tolist(), strict=True)
    return soak(host=tuple({"VLLM::EngineCor 7": a, "python 5": b} for a, b in pairs))


def test_the_process_that_grew_is_named() -> None:
    flat = np.full(IMAGES, 700.0)
    leak = 2000.0 + 2 * TIME
    verdict = judge_host(of_processes(leak, flat), MAXIMUM)
    assert not verdict.passed
    assert verdict.details == (
        "of all processes VLLM::EngineCor 7 grew most: by 198 MiB over the second half",
        "host memory was 2700 MiB after the first image, 2900 MiB in the middle and 3098 MiB at "
        "the end",
    )
    assert "python 5 grew most" in judge_host(of_processes(flat, leak), MAXIMUM).details[0]
    assert verdict.evidence["grown_mib"] == {"VLLM::EngineCor 7": 198.0, "python 5": 0.0}


def test_processes_may_come_and_go() -> None:
    host = [{"a 1": 500.0, **({"b 2": 100.0} if number < 120 else {})} for number in range(IMAGES)]
    assert judge_host(soak(host=tuple(host)), MAXIMUM).passed
    host = [{"a 1": 500.0, **({"b 2": 5.0} if number > 120 else {})} for number in range(IMAGES)]
    assert judge_host(soak(host=tuple(host)), MAXIMUM).passed


def test_the_evidence_has_the_series_and_the_slope() -> None:
    evidence = judged(TIME * 1.04).evidence
    (series,) = evidence["series"]
    assert (series["name"], series["unit"]) == ("device memory", "MiB")
    assert series["values"][:3] == [0.0, 1.0, 2.1]
    assert evidence["slope"]["low"] <= evidence["slope"]["value"] <= evidence["slope"]["high"]


# --- answers -------------------------------------------------------------------------------------

UNUSED = CacheUse(4, 0, 100, 0)


def answer(name: str, *tokens: int) -> Completion:
    return Completion(name, "".join(map(chr, tokens)), tokens, "stop", None, None, 0.1)


FIRST = {name: answer(name, 65, 66, 67) for name in ("image/a", "image/b")}


def asked(**more: Any) -> Verdict:
    known = {"first": FIRST, "again": FIRST, "cold": FIRST, "cold_caches": UNUSED}
    return judge_answers(soak(**{**known, **more}), 1.0)


def test_answers_that_come_again_pass() -> None:
    verdict = asked()
    assert verdict.passed
    assert verdict.reason.startswith("after 200 different images, 4 of 4 answers are identical")
    assert "no counters" in verdict.evidence["again"]
    assert "0 hits for 4 images" in verdict.evidence["cold"]


@pytest.mark.parametrize(
    ("which", "name"), [("again", "image/b (again)"), ("cold", "image/b (cold)")]
)
def test_one_token_of_one_answer_is_seen(which: str, name: str) -> None:
    verdict = asked(**{which: {**FIRST, "image/b": answer("image/b", 65, 66, 68)}})
    assert not verdict.passed
    assert verdict.measured == 0.75
    assert verdict.evidence["differing"] == [name]
    assert name in verdict.details[0]


def test_tokens_count_and_not_only_texts() -> None:
    other = dataclasses.replace(FIRST["image/a"], token_ids=(1, 2, 3))
    assert not asked(again={**FIRST, "image/a": other}).passed


def test_an_image_from_a_cache_is_an_error_if_it_had_to_be_computed() -> None:
    with pytest.raises(PreconditionError, match="from its cache"):
        asked(cold_caches=CacheUse(4, 1, 100, 0))
    hits = asked(again_caches=CacheUse(4, 3, 100, 0))
    assert hits.passed
    assert "3 hits for 4 images" in hits.evidence["again"]
