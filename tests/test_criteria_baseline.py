"""Rules of baseline.*: differences that rounding explains, and others."""

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
from pytest_ascend_vlm.criteria.determinism import judge_load, judge_preemption
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Completion, Reference, TopLogprobs, Usage
from pytest_ascend_vlm.observation.numerics import (
    Forced,
    ReferenceHidden,
    ReferenceNumerics,
    TokenScores,
)

THRESHOLDS = Thresholds()
END = 258
PROMPT = 36
LISTED = 64


def reference(text: str = "巴黎", *, second: float = -9.0, bf16: float = 0.01) -> Reference:
    """A reference that prefers each of its tokens to the token 88 (X) by -second nats.

    In bf16 the preference is larger by `bf16` nats. The reference keeps one row of the prompt.
    """
    forced = tuple(text.encode())
    tokens = (*forced, END)
    listed = np.array([[token, 88, 89] for token in (1, *tokens)])
    fp32 = np.tile([20.0, 20 + second, 15 + second], (len(listed), 1))
    rounded = fp32 - [0, bf16, bf16]
    rows = np.array([3, *range(PROMPT - 1, PROMPT + len(forced))])
    states = np.zeros((len(rows), 2), dtype=np.float32)
    nowhere = np.zeros(len(rows), dtype=bool)
    numerics = ReferenceNumerics(
        token_ids=forced,
        positions=rows,
        is_image=nowhere,
        top_tokens=listed,
        fp32=fp32,
        bf16=rounded,
        fp32_logsumexp=np.log(np.exp(fp32).sum(axis=1)),
        bf16_logsumexp=np.log(np.exp(rounded).sum(axis=1)),
        logit_rmse=0.04,
        hidden=ReferenceHidden(rows, nowhere, states, states),
    )
    prompt = (7,) * PROMPT
    return Reference("text/capital-zh", "recorded with X", text, False, prompt, tokens, numerics)


def numerics_of(golden: Reference) -> ReferenceNumerics:
    assert golden.numerics is not None
    return golden.numerics


def forced(numerics: ReferenceNumerics, values: np.ndarray, *, width: int = 3) -> Forced:
    """A server's scores of the forced answer, without scores of the prompt.

    Args:
        numerics: the reference's numerics, which give the listed tokens.
        values: raw logits of these tokens, for each row.
        width: number of tokens that the server lists in a row.
    """
    answer = numerics.positions[numerics.first_answer_row : -1]
    ids = np.full((answer[-1] + 1, width), -1)
    table = np.full(ids.shape, np.nan)
    ids[answer], table[answer] = numerics.top_tokens[1:-1, :width], values[1:-1, :width]
    return Forced("text/capital-zh", TokenScores(ids, table, table.min(axis=1), True), LISTED)


def served(text: str, token_ids: tuple[int, ...] | None = None, prompt: int = 36) -> Completion:
    tokens = (*text.encode(), END) if token_ids is None else token_ids
    usage = Usage(prompt, len(tokens), prompt + len(tokens))
    return Completion("text/capital-zh", text, tokens, "stop", usage, None, seconds=0.1)


def with_x_at(position: int, text: str = "巴黎") -> Completion:
    tokens = [*text.encode(), END]
    tokens[position] = 88
    return served(bytes(tokens[:-1]).decode("utf-8", "replace"), tuple(tokens))


def test_numbers_within_three_roundings_pass_and_beyond_fail() -> None:
    numerics = numerics_of(reference(bf16=0.01))
    for factor, holds in ((0.0, True), (2.9, True), (3.1, False), (math.nan, False)):
        observed = numerics.fp32 + factor * (numerics.bf16 - numerics.fp32)
        verdict = rules.judge_logprobs(forced(numerics, observed), numerics, THRESHOLDS)
        assert verdict.passed == holds
        assert verdict.threshold == pytest.approx(3 * 0.01 * 2 / 3, rel=1e-3)
        assert verdict.evidence["positions"] == len(numerics.token_ids)


@given(st.lists(st.floats(-50, 50), min_size=6, max_size=6), st.floats(-3, 3))
def test_a_constant_added_to_a_position_makes_no_difference(
    constants: list[float], factor: float
) -> None:
    numerics = numerics_of(reference())
    observed = numerics.fp32 + factor * (numerics.bf16 - numerics.fp32)
    shifted = observed + np.array([0, *constants, 0])[:, None]
    there, here = (
        rules.judge_logprobs(forced(numerics, values), numerics, THRESHOLDS)
        for values in (observed, shifted)
    )
    assert here.measured == pytest.approx(there.measured, abs=1e-9)


def test_a_token_that_is_not_listed_counts_with_its_smallest_possible_difference() -> None:
    numerics = numerics_of(reference(second=-9.0))
    # The reference gives the third token 6; a server that lists two gives it at most the second's.
    for second, proven in ((11.0, 0.0), (6.0, 5.0), (5.0, 6.0 + 1.0)):
        answer = forced(numerics, np.tile([20.0, second, np.nan], (8, 1)), width=2)
        measured = rules.judge_logprobs(answer, numerics, THRESHOLDS).measured
        assert measured == pytest.approx(proven / 3, abs=1e-3)


def test_the_worst_position_is_shown_with_the_candidates_of_both_sides() -> None:
    numerics = numerics_of(reference())
    observed = numerics.fp32.copy()
    observed[numerics.first_answer_row + 2] = [18.0, 20.0, 3.0]
    verdict = rules.judge_logprobs(forced(numerics, observed), numerics, THRESHOLDS)
    assert not verdict.passed
    assert verdict.details[1].startswith("largest at token 3 of 6: ")
    assert "expected token 180 (100.0%), token 88 (0.0%)" in verdict.details[1]
    assert "got token 88 (88.1%), token 180 (11.9%), token 89 (0.0%)" in verdict.details[1]


def test_the_candidates_are_shown_where_another_position_lists_one_more() -> None:
    numerics = numerics_of(reference())
    answer = forced(numerics, numerics.fp32)
    scores = dataclasses.replace(
        answer.scores,
        token_ids=np.pad(answer.scores.token_ids, [(0, 0), (0, 1)], constant_values=-1),
        values=np.pad(answer.scores.values, [(0, 0), (0, 1)], constant_values=np.nan),
    )
    verdict = rules.judge_logprobs(dataclasses.replace(answer, scores=scores), numerics, THRESHOLDS)
    assert "got token 229 (100.0%), token 88 (0.0%), token 89 (0.0%)" in verdict.details[1]


def test_an_equal_answer_passes() -> None:
    verdict = rules.judge_text(served("巴黎"), reference(), THRESHOLDS)
    assert verdict.passed
    assert verdict.evidence["exact_match"] is True
    assert rules.judge_divergence(served("巴黎"), reference()).passed


def test_a_token_the_reference_was_sure_of_is_not_excused() -> None:
    golden = reference(second=-9.0)
    verdict = rules.judge_divergence(with_x_at(0), golden)
    assert not verdict.passed
    assert verdict.measured == pytest.approx(9.0)
    assert any("was not near a tie" in line for line in verdict.details)
    assert not rules.judge_text(with_x_at(0), golden, THRESHOLDS).passed


def test_a_near_tie_is_excused_and_said_so() -> None:
    golden = reference("巴" * 20 + "a", second=-0.2)
    turned = with_x_at(60, golden.text)
    assert rules.judge_divergence(turned, golden).passed
    verdict = rules.judge_text(turned, golden, THRESHOLDS)
    assert verdict.passed
    assert verdict.threshold == THRESHOLDS.similarity_after_tie
    assert "after a near-tie" in verdict.reason


def test_only_a_near_tie_widens_the_tolerance_of_a_page() -> None:
    golden = reference("巴" * 20 + "a", second=-0.2)
    assert rules.diverges_at_near_tie(with_x_at(60, golden.text), golden)
    assert not rules.diverges_at_near_tie(served(golden.text), golden)
    assert not rules.diverges_at_near_tie(with_x_at(0), reference())


def test_an_answer_among_others_may_differ_from_a_near_tie_on() -> None:
    text = "巴" * 20 + "a"
    alone, turned = {"text/capital-zh": served(text)}, with_x_at(60, text)
    tied = judge_load(alone, [served(text), turned], lambda _: reference(text, second=-0.2))
    assert tied.passed
    assert tied.evidence["near_ties"] == 1
    assert tied.reason.startswith("1 of 2 answers equal the answer to the case alone; 1 differ")
    clear = judge_load(alone, [served(text), turned], lambda _: reference(text))
    assert not clear.passed
    assert clear.measured == 0.5
    assert clear.evidence["differing"] == ["text/capital-zh"]


def test_a_near_tie_of_the_answer_alone_excuses_no_other_token() -> None:
    """The reference prefers 巴, and X nearly as much; Z is neither."""
    text = "巴" * 20 + "a"
    alone = with_x_at(60, text)
    garbage = dataclasses.replace(
        alone,
        token_ids=tuple(ord("Z") if one == ord("X") else one for one in alone.token_ids or ()),
    )
    tied = {"text/capital-zh": alone}
    assert judge_load(tied, [served(text)], lambda _: reference(text, second=-0.2)).passed
    assert not judge_load(tied, [garbage], lambda _: reference(text, second=-0.2)).passed


def test_an_answer_of_another_case_is_named() -> None:
    other = dataclasses.replace(served("伦敦"), case_id="text/other")
    alone = {"text/capital-zh": served("巴黎"), "text/other": other}
    verdict = judge_load(alone, [served("伦敦"), other], lambda _: reference())
    assert "the first difference is in text/capital-zh; it is the answer of text/other:" in (
        verdict.details
    )


@pytest.mark.parametrize(("preemptions", "told"), [(None, "no preemption"), (0.0, "0 preemptions")])
def test_a_cache_that_never_was_full_gives_no_verdict(preemptions: float | None, told: str) -> None:
    alone = {"text/capital-zh": served("巴黎")}
    with pytest.raises(PreconditionError, match=told):
        judge_preemption(alone, [served("巴黎")], lambda _: reference(), preemptions)
    assert judge_preemption(alone, [served("巴黎")], lambda _: reference(), 3.0).passed


def test_after_a_near_tie_most_of_the_text_still_has_to_agree() -> None:
    assert not rules.judge_text(with_x_at(0, "ab"), reference("ab", second=-0.2), THRESHOLDS).passed


def test_a_token_far_outside_the_candidates_is_not_excused() -> None:
    tokens = (7, *tuple("巴黎".encode())[1:], END)
    verdict = rules.judge_divergence(served("?", tokens), reference(second=-0.05))
    assert not verdict.passed
    assert verdict.measured >= 5


@pytest.mark.parametrize("tokens", [(), tuple("巴黎".encode()), (*"巴黎".encode(), END, END)])
def test_an_answer_of_another_length_diverges(tokens: tuple[int, ...]) -> None:
    assert not rules.judge_divergence(served("巴黎", tokens), reference()).passed


def test_texts_that_differ_never_pass_without_token_ids() -> None:
    unknown = dataclasses.replace(served("巴西"), token_ids=None)
    with contextlib.suppress(PreconditionError):  # an error of the set-up is a result as well
        assert not rules.judge_divergence(unknown, reference()).passed


def test_the_tie_is_a_rounding_of_the_largest_logit_or_four_sigmas_of_the_reference() -> None:
    golden = reference()
    exact = dataclasses.replace(numerics_of(golden), logit_rmse=0.0)
    for numerics, tie in ((numerics_of(golden), 4 * math.sqrt(2) * 0.04), (exact, 2.0**-3)):
        # bf16 has 8 bits: 16..32 in steps of 1/8
        replaced = dataclasses.replace(golden, numerics=numerics)
        divergence = rules.find_divergence(with_x_at(0), replaced)
        assert divergence is not None
        assert divergence.tie == pytest.approx(tie)


def test_prompts_of_different_lengths_are_not_compared() -> None:
    rules.require_same_prompt(served("巴黎"), reference())
    with pytest.raises(PreconditionError, match="39 tokens, the reference's has 36"):
        rules.require_same_prompt(served("巴黎", prompt=39), reference())


def test_the_prompt_s_own_tokens_are_counted_where_the_reply_has_them() -> None:
    told_wrongly = dataclasses.replace(served("巴黎", prompt=39), prompt_token_ids=(7,) * 36)
    rules.require_same_prompt(told_wrongly, reference())
    longer = dataclasses.replace(served("巴黎"), prompt_token_ids=(7,) * 37)
    with pytest.raises(PreconditionError, match="37 tokens, the reference's has 36"):
        rules.require_same_prompt(longer, reference())


def test_other_tokens_of_the_same_number_are_another_prompt() -> None:
    other = dataclasses.replace(served("巴黎"), prompt_token_ids=(*(7,) * 30, 8, *(7,) * 5))
    with pytest.raises(PreconditionError, match="not the same ones; they differ from token 31 on"):
        rules.require_same_prompt(other, reference())
    seen = forced(numerics_of(reference()), numerics_of(reference()).fp32)
    rules.require_same_forced_prompt(
        dataclasses.replace(seen, prompt_token_ids=(7,) * PROMPT), reference()
    )
    with pytest.raises(PreconditionError, match="not the same ones"):
        rules.require_same_forced_prompt(
            dataclasses.replace(seen, prompt_token_ids=(8,) * PROMPT), reference()
        )


def test_an_unknown_prompt_is_not_the_reference_s() -> None:
    """The answers can still be compared; only the criterion about the prompt fails."""
    silent = dataclasses.replace(served("巴黎"), prompt_token_ids=None, usage=None)
    verdict = rules.judge_prompt(silent, reference(), "?")
    assert not verdict.passed
    assert "its prompt is unknown" in verdict.details[0]
    rules.require_same_prompt(silent, reference())
    assert rules.judge_prompt(served("巴黎"), reference(), "?").passed


@pytest.mark.parametrize(
    ("got", "differs"),
    [((7,) * PROMPT, None), ((7,) * (PROMPT + 4), "images"), ((*(7,) * 30, 8), "text")],
)
def test_a_prompt_tells_the_part_that_differs(got: tuple[int, ...], differs: str | None) -> None:
    answer = dataclasses.replace(served("巴黎"), prompt_token_ids=got, usage=None)
    evidence = rules.judge_prompt(answer, reference(), "法国").evidence
    assert evidence["differs"] == differs
    assert evidence["image_tokens"] == PROMPT
    assert evidence["ascii"] is False


def test_an_answer_that_ends_elsewhere_is_told_in_tokens() -> None:
    ids = reference().token_ids or ()
    for got, told in ((ids[:1], "the served answer has ended"), ((*ids, 88, 88), "goes on")):
        verdict = rules.judge_divergence(served("?", got), reference())
        assert not verdict.passed
        assert (verdict.measured, verdict.unit) == (abs(len(got) - len(ids)), "tokens")
        assert any(told in line for line in verdict.details)
        assert not any("inf" in line for line in (verdict.reason, *verdict.details))


def test_placeholders_are_one_token() -> None:
    golden = dataclasses.replace(reference(), placeholders=(7, 9))
    mixed = dataclasses.replace(served("巴黎"), prompt_token_ids=(*(7,) * 30, *(9,) * 6))
    rules.require_same_prompt(mixed, golden)
    with pytest.raises(PreconditionError, match="not the same ones; they differ from token 31 on"):
        rules.require_same_prompt(mixed, reference())
    other = dataclasses.replace(served("巴黎"), prompt_token_ids=(*(9,) * 30, *(8,) * 6))
    with pytest.raises(PreconditionError, match="not the same ones; they differ from token 31 on"):
        rules.require_same_prompt(other, golden)


@pytest.mark.parametrize("longer", [-1, 0, 1])
def test_an_answer_is_forced_behind_a_prompt_of_the_same_length(longer: int) -> None:
    golden = reference()
    numerics = numerics_of(golden)
    seen = forced(numerics, numerics.fp32)
    rows = np.arange(len(seen.scores) + longer) % len(seen.scores)
    scores = seen.scores
    moved = TokenScores(scores.token_ids[rows], scores.values[rows], scores.floor[rows], True)
    other = Forced("text/capital-zh", moved, LISTED)
    if longer == 0:
        rules.require_same_forced_prompt(other, golden)
        return
    with pytest.raises(PreconditionError, match="the reference's has 36"):
        rules.require_same_forced_prompt(other, golden)


def test_of_a_published_answer_only_what_was_published_is_compared() -> None:
    published = Reference("text/name", "published in a document", "I'm your son.", True)
    assert rules.judge_text(served("I'm your son. And more."), published, THRESHOLDS).passed
    assert not rules.judge_text(served("I'm your sun. And more."), published, THRESHOLDS).passed
    verdict = rules.judge_text(served("I'm"), published, THRESHOLDS)
    assert not verdict.passed
    assert verdict.evidence["reference"] == "published in a document"


def replayed(text: str, tokens: tuple[int, ...], *rows: dict[int, float]) -> Completion:
    """The reference's answer of today; in each row the candidates of a token."""
    table = [list(row) for row in rows] or [[token, 88] for token in tokens]
    values = [list(row.values()) for row in rows] or [[-0.1, -3.0] for _ in tokens]
    top = TopLogprobs(np.array(table), np.array(values))
    return Completion("text/capital-zh", text, tokens, None, None, top, seconds=0.1)


def test_a_reference_that_no_longer_gives_its_golden_fails() -> None:
    golden = reference()
    assert rules.judge_replay(replayed("巴黎", golden.token_ids or ()), golden).passed
    verdict = rules.judge_replay(replayed("巴西", (*"巴西".encode(), END)), golden)
    assert not verdict.passed
    assert any("recorded: " in line for line in verdict.details)
    assert not any("served model" in line for line in verdict.details)


def test_a_reference_that_diverges_at_a_near_tie_still_passes() -> None:
    golden = reference("ab", second=-0.1)
    assert rules.judge_replay(replayed("aX", (97, 88, END)), golden).passed


OF_OTHER_TOKENS = dataclasses.replace(reference("ab"), token_ids=(5, 6, END))
"""A golden whose text has other tokens (97, 98) than those that were generated (5, 6)."""


@pytest.mark.parametrize(("preference", "is_near"), [(0.1, True), (3.0, False)])
def test_of_an_answer_whose_text_has_other_tokens_todays_preference_counts(
    preference: float, is_near: bool
) -> None:
    rows = ({5: -0.1, 6: -4.0}, {7: -0.1, 6: -0.1 - preference}, {END: -0.1, 7: -4.0})
    verdict = rules.judge_replay(replayed("aX", (5, 7, END), *rows), OF_OTHER_TOKENS)
    assert verdict.passed is is_near
    told = next(line for line in verdict.details if "near a tie" in line)
    assert f"{preference:.3g} nats" in told
    assert ("was not near" not in told) is is_near


def test_a_replay_that_ends_early_or_with_a_token_that_is_not_listed_fails() -> None:
    ended = replayed("a", (5,))
    row = {5: -0.1, 8: -0.2}
    unlisted = replayed("aX", (5, 7, END), row, row, row)
    for answer in (ended, unlisted):
        assert not rules.judge_replay(answer, OF_OTHER_TOKENS).passed


def test_a_preference_that_nobody_knows_is_neither_near_nor_far() -> None:
    answer = served("aX", (5, 7, END))
    for verdict in (
        rules.judge_divergence(answer, OF_OTHER_TOKENS),
        rules.judge_replay(dataclasses.replace(answer, top=None), OF_OTHER_TOKENS),
    ):
        assert not verdict.passed
        told = "\n".join(verdict.details)
        assert "whether the reference was near a tie at token 2 is not known" in told
        assert "reference's candidates" not in told


# --- evidence of the answer, and of where two answers part ----------------------------------------


def test_a_compared_answer_has_its_length_and_its_time_in_the_evidence() -> None:
    facts = {"prompt_tokens": 36, "output_tokens": 7, "seconds": 0.1, "finish_reason": "stop"}
    for answer in (served("巴黎"), with_x_at(0)):
        assert rules.judge_text(answer, reference(), THRESHOLDS).evidence["answer"] == facts
        assert rules.judge_divergence(answer, reference()).evidence["answer"] == facts


def listing(position: int, *logprobs: float) -> TopLogprobs:
    """Lists with the tokens 65, 66, ... at one position, and with one other token elsewhere."""
    ids = np.full((7, len(logprobs)), -1)
    values = np.full(ids.shape, np.nan)
    ids[:, 0], values[:, 0] = 90, 0.0
    ids[position], values[position] = range(65, 65 + len(logprobs)), logprobs
    return TopLogprobs(ids, values)


def test_where_two_answers_part_both_sides_candidates_are_in_the_evidence() -> None:
    golden = reference(second=-1.0)
    top = listing(2, -3.0, -0.5, -1.5, -4.0, -5.0, -6.0, math.nan)
    answer = dataclasses.replace(with_x_at(2), top=top)
    plain = rules.judge_divergence(answer, golden)
    verdict = rules.with_parting(plain, answer, golden, chr)
    parting = verdict.evidence["parting"]
    assert {**verdict.evidence, "parting": None} == {**plain.evidence, "parting": None}
    assert (verdict.passed, verdict.details) == (plain.passed, plain.details)
    assert parting["position"] == 2
    assert parting["margin"] == pytest.approx(1.0)
    assert parting["served"] == [
        ["B", -0.5], ["C", -1.5], ["A", -3.0], ["D", -4.0], ["E", -5.0],
    ]  # fmt: skip
    assert [token for token, _ in parting["reference"]] == [chr("巴".encode()[2]), "X", "Y"]
    (first, second, _) = (value for _, value in parting["reference"])
    assert first - second == pytest.approx(1.0, abs=1e-3)


def test_where_nothing_is_listed_the_candidates_are_empty() -> None:
    golden = reference()
    longer = served("巴黎", (*"巴黎".encode(), 65, 66, END))
    for answer, position in ((with_x_at(0), 0), (longer, 6)):
        verdict = rules.with_parting(rules.judge_divergence(answer, golden), answer, golden, str)
        parting = verdict.evidence["parting"]
        assert (parting["position"], parting["served"]) == (position, [])


def test_answers_that_do_not_part_have_no_parting() -> None:
    verdict = rules.judge_divergence(served("巴黎"), reference())
    assert rules.with_parting(verdict, served("巴黎"), reference(), str) is verdict
