"""Against the reference: what is excused as rounding, and what is not."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm import Thresholds
from pytest_ascend_vlm.criteria import baseline as rules
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation import (
    Completion,
    Forced,
    Reference,
    ReferenceNumerics,
    TopLogprobs,
    Usage,
)

BARS = Thresholds()
END = 258


def top(*rows: dict[int, float]) -> TopLogprobs:
    """Rows of token -> log-probability as the arrays of an engine, padded as it pads them."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), -1, dtype=np.int64)
    values = np.full((len(rows), width), np.nan)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = list(row)
        values[index, : len(row)] = list(row.values())
    return TopLogprobs(ids, values)


def reference(text: str = "巴黎", *, second: float = -9.0, bf16: float = 0.01) -> Reference:
    """A reference that prefers each of its tokens to the token 88 (X) by -second nats."""
    forced = tuple(text.encode())
    tokens = (*forced, END)
    fp32 = [{token: 0.0, 88: second, 89: second - 5} for token in tokens]
    numerics = ReferenceNumerics(
        token_ids=forced,
        fp32=top(*fp32),
        bf16=top(*({t: p - bf16 for t, p in row.items()} for row in fp32)),
        peak_logit=np.full(len(tokens), 20.0),
        logit_rmse=0.04,
    )
    return Reference("text/capital-zh", "recorded with X", text, False, 36, tokens, numerics)


def served(text: str, token_ids: tuple[int, ...] | None = None, prompt: int = 36) -> Completion:
    tokens = (*text.encode(), END) if token_ids is None else token_ids
    usage = Usage(prompt, len(tokens), prompt + len(tokens))
    return Completion("text/capital-zh", text, tokens, "stop", usage, None, seconds=0.1)


def with_x_at(position: int, text: str = "巴黎") -> Completion:
    tokens = [*text.encode(), END]
    tokens[position] = 88
    return served(bytes(tokens[:-1]).decode("utf-8", "replace"), tuple(tokens))


ROWS = st.lists(
    st.dictionaries(st.integers(0, 30), st.floats(-30, 0), min_size=1, max_size=8),
    min_size=1,
    max_size=5,
)


@given(ROWS)
def test_equal_log_probabilities_do_not_differ(rows: list[dict[int, float]]) -> None:
    assert not rules.visible_difference(top(*rows), top(*rows)).any()


@given(ROWS)
def test_the_visible_difference_is_symmetric_and_never_negative(
    rows: list[dict[int, float]],
) -> None:
    other = [{token + 1: p - 0.5 for token, p in row.items()} for row in rows]
    difference = rules.visible_difference(top(*rows), top(*other))
    assert (difference >= 0).all()
    assert difference == pytest.approx(rules.visible_difference(top(*other), top(*rows)))


def test_a_token_that_only_one_side_lists_counts_with_its_least_difference() -> None:
    left, right = top({1: -0.1, 2: -3.0}), top({1: -0.1, 3: -2.0})
    # 2: listed left at -3, right is at most -2: nothing proven. 3: listed right at -2, left <= -3.
    assert rules.visible_difference(left, right) == pytest.approx([1.0 / 3])


def test_numbers_within_three_roundings_hold_and_beyond_do_not() -> None:
    golden = reference(bf16=0.01)
    assert golden.numerics is not None
    count = len(golden.numerics.token_ids)
    rows = [golden.numerics.fp32.at(index) for index in range(count)]
    for shift, holds in ((0.0, True), (0.029, True), (0.031, False), (math.nan, False)):
        forced = top(*({t: p - shift for t, p in row.items()} for row in rows))
        verdict = rules.logprobs_match(
            Forced(golden.numerics.token_ids, forced), golden.numerics, BARS
        )
        assert verdict.passed == holds
        assert verdict.threshold == pytest.approx(0.03)
        assert verdict.evidence["positions"] == count


def test_an_equal_answer_holds() -> None:
    verdict = rules.text_matches(served("巴黎"), reference(), BARS)
    assert verdict.passed
    assert verdict.evidence["exact_match"] is True
    assert rules.divergence_is_rounding(served("巴黎"), reference()).passed


def test_a_token_the_reference_was_sure_of_is_not_excused() -> None:
    golden = reference(second=-9.0)
    verdict = rules.divergence_is_rounding(with_x_at(0), golden)
    assert not verdict.passed
    assert verdict.measured == pytest.approx(9.0)
    assert any("was not near a tie" in line for line in verdict.details)
    assert not rules.text_matches(with_x_at(0), golden, BARS).passed


def test_a_near_tie_is_excused_and_said_so() -> None:
    golden = reference("巴" * 20 + "a", second=-0.2)
    turned = with_x_at(60, golden.text)
    assert rules.divergence_is_rounding(turned, golden).passed
    verdict = rules.text_matches(turned, golden, BARS)
    assert verdict.passed
    assert verdict.threshold == BARS.similarity_after_tie
    assert "after a near-tie" in verdict.reason


def test_only_a_near_tie_widens_the_bars_of_a_page() -> None:
    golden = reference("巴" * 20 + "a", second=-0.2)
    assert rules.parts_at_near_tie(with_x_at(60, golden.text), golden)
    assert not rules.parts_at_near_tie(served(golden.text), golden)
    assert not rules.parts_at_near_tie(with_x_at(0), reference())


def test_after_a_near_tie_most_of_the_text_still_has_to_agree() -> None:
    assert not rules.text_matches(with_x_at(0, "ab"), reference("ab", second=-0.2), BARS).passed


def test_a_token_far_outside_the_candidates_is_not_excused() -> None:
    tokens = (7, *tuple("巴黎".encode())[1:], END)
    verdict = rules.divergence_is_rounding(served("?", tokens), reference(second=-0.05))
    assert not verdict.passed
    assert verdict.measured >= 5


@pytest.mark.parametrize("tokens", [(), tuple("巴黎".encode()), (*"巴黎".encode(), END, END)])
def test_an_answer_of_another_length_diverges(tokens: tuple[int, ...]) -> None:
    assert not rules.divergence_is_rounding(served("巴黎", tokens), reference()).passed


def test_texts_that_differ_never_hold_where_no_token_ids_are_known() -> None:
    unknown = dataclasses.replace(served("巴西"), token_ids=None)
    with contextlib.suppress(PreconditionError):  # an error of the set-up is an answer too
        assert not rules.divergence_is_rounding(unknown, reference()).passed


def test_the_tie_is_a_rounding_of_the_largest_logit_or_four_sigmas_of_the_reference() -> None:
    numerics = reference().numerics
    assert numerics is not None
    assert rules.tie_margin(numerics, 0) == pytest.approx(4 * math.sqrt(2) * 0.04)
    exact = dataclasses.replace(numerics, logit_rmse=0.0)
    assert rules.tie_margin(exact, 0) == 2.0**-3  # bf16 has 8 bits: 16..32 in steps of 1/8


def test_prompts_of_different_lengths_are_not_compared() -> None:
    rules.require_same_prompt(served("巴黎"), reference())
    with pytest.raises(PreconditionError, match="39 tokens, the reference's has 36"):
        rules.require_same_prompt(served("巴黎", prompt=39), reference())


def test_of_a_published_answer_only_what_was_published_is_compared() -> None:
    published = Reference("text/name", "published in a document", "I'm your son.", True)
    assert rules.text_matches(served("I'm your son. And more."), published, BARS).passed
    assert not rules.text_matches(served("I'm your sun. And more."), published, BARS).passed
    verdict = rules.text_matches(served("I'm"), published, BARS)
    assert not verdict.passed
    assert verdict.evidence["reference"] == "published in a document"


def test_a_reference_that_no_longer_gives_its_golden_is_red() -> None:
    assert rules.reference_holds(reference(), reference()).passed
    other = dataclasses.replace(reference(), text="巴西", token_ids=(*"巴西".encode(), END))
    verdict = rules.reference_holds(other, reference())
    assert not verdict.passed
    assert any("recorded: " in line for line in verdict.details)


def test_a_reference_that_parts_at_a_near_tie_still_holds() -> None:
    golden = reference("ab", second=-0.1)
    replayed = dataclasses.replace(golden, text="aX", token_ids=(97, 88, END))
    assert rules.reference_holds(replayed, golden).passed
