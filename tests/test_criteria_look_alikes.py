"""Rules of requests that look alike: images in another order, clips in another order or time."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from test_criteria_numerics import CASE, golden, off_by, seen

from pytest_ascend_vlm.criteria.look_alikes import Seen, judge_seen, other_clips, reversed_images
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.numerics import ReferenceNumerics
from pytest_ascend_vlm.spec.case import Capability, Case, Message

MISTAKE = "the images of a request are exchanged"


def order_case(*images: str, earlier: bool = False) -> Case:
    before = (Message("system", ("Read.",)),) if earlier else ()
    paths = tuple(map(Path, images))
    return Case("order/" + "-".join(images), Capability.IMAGE, "Which?", paths, earlier=before)


def clip_case(name: str, prompt: str = "Which numbers?") -> Case:
    return Case(f"clip/{name}", Capability.VIDEO, prompt, videos=(Path(name),))


def comparable(seed: int, like: ReferenceNumerics) -> ReferenceNumerics:
    """Other numbers, of the tokens that another reference lists."""
    return dataclasses.replace(golden(seed), top_tokens=like.top_tokens)


def test_a_case_looks_like_that_of_the_same_texts_with_the_images_reversed() -> None:
    one, other = order_case("a", "b"), order_case("b", "a")
    cases = [one, other, order_case("c", "c"), order_case("b", "a", earlier=True)]
    assert reversed_images(one, cases) == [other]
    assert reversed_images(other, cases) == [one]
    assert not any(reversed_images(case, cases) for case in cases[2:])


def test_a_clip_looks_like_another_of_the_same_question_with_other_numbers() -> None:
    own, longer = golden(1), golden(2)
    longer = dataclasses.replace(longer, positions=longer.positions + 1)
    numerics = {
        "clip/up": own,
        "clip/down": comparable(2, own),
        "clip/longer": longer,
        # The reference does not see the time of a frame.
        "clip/slow": own,
        "clip/asked": comparable(3, own),
    }
    cases = [clip_case(name) for name in ("up", "down", "longer", "slow")]
    cases.append(clip_case("asked", "How many?"))
    up, down, longest, slow, asked = cases
    assert other_clips(up, cases, numerics) == [down]
    assert other_clips(down, cases, numerics) == [up, slow]
    assert other_clips(longest, cases, numerics) == []
    assert other_clips(asked, cases, numerics) == []


def test_a_request_is_told_from_one_that_looks_alike() -> None:
    own = golden(1)
    other = comparable(2, own)
    others = {"order/reversed": other}
    right = judge_seen([Seen(seen(own, off_by(1.0, own)), own, others)], MISTAKE)
    assert right.passed
    mistaken = judge_seen([Seen(seen(own, off_by(1.0, other)), own, others)], MISTAKE)
    assert not mistaken.passed
    assert mistaken.details == (f"{CASE}: the numbers are those of order/reversed: {MISTAKE}",)
    neither = judge_seen([Seen(seen(own, off_by(1.0, golden(3))), own, others)], MISTAKE)
    assert not neither.passed
    assert neither.details == (f"{CASE}: the numbers are those of no request that looks alike",)


def test_numbers_that_are_no_numbers_fail() -> None:
    own = golden(1)
    others = {"order/reversed": comparable(2, own)}
    good = seen(own, off_by(1.0, own))
    bad = dataclasses.replace(seen(own, off_by(math.nan, own)), case_id="order/bad")
    verdict = judge_seen([Seen(good, own, others), Seen(bad, own, others)], MISTAKE)
    assert not verdict.passed
    assert verdict.details == ("order/bad: the numbers are those of no request that looks alike",)


def test_requests_of_equal_numbers_cannot_be_told_apart() -> None:
    own = golden(1)
    with pytest.raises(PreconditionError, match=r"those of clip/same as well \(R = 1\.0"):
        judge_seen([Seen(seen(own, off_by(1.0, own)), own, {"clip/same": own})], MISTAKE)
