"""Rules of numerics.*: rounding passes, defects fail, and the error is located."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm import Thresholds
from pytest_ascend_vlm.criteria import numerics as rules
from pytest_ascend_vlm.criteria.comparison import (
    CaseComparison,
    Table,
    compare_hidden_states,
    compare_logits,
    divergence,
    log_softmax,
)
from pytest_ascend_vlm.criteria.error_statistics import ErrorStatistics, per_position
from pytest_ascend_vlm.criteria.generation import (
    judge_generation,
    judge_long_answer,
    require_length,
)
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Completion, TopLogprobs
from pytest_ascend_vlm.observation.numerics import (
    Forced,
    ReferenceHidden,
    ReferenceNumerics,
    TokenScores,
)

THRESHOLDS = rules.NumericsThresholds.of_logits(Thresholds())
HIDDEN_THRESHOLDS = rules.NumericsThresholds.of_hidden_states(Thresholds())
CASE = "text/首都"
PROMPT, ANSWER, TOKENS = 12, 8, 6
LENGTH = PROMPT + ANSWER
ROUNDING = 0.1
SEEDS = st.integers(0, 9999)
FACTORS = st.floats(-30, 30)


def golden(seed: int = 0) -> ReferenceNumerics:
    """A reference that keeps every row and has an error of up to `ROUNDING` in bf16.

    The prompt's tokens 2 to 7 are an image; no token but the listed ones has any probability.
    """
    chance = np.random.default_rng(seed)
    rows = np.arange(LENGTH)
    is_image = (rows >= 2) & (rows < 8)
    fp32 = np.sort(chance.uniform(0, 20, (LENGTH, TOKENS)))[:, ::-1]
    bf16 = fp32 + chance.uniform(-ROUNDING, ROUNDING, fp32.shape)
    states = chance.normal(size=(LENGTH, 5)).astype(np.float32)
    return ReferenceNumerics(
        token_ids=tuple(range(ANSWER)),
        positions=rows,
        is_image=is_image,
        top_tokens=chance.permuted(np.tile(np.arange(50), (LENGTH, 1)), axis=1)[:, :TOKENS],
        fp32=fp32,
        bf16=bf16,
        fp32_logsumexp=logsumexp(fp32),
        bf16_logsumexp=logsumexp(bf16),
        logit_rmse=ROUNDING / 2,
        hidden=ReferenceHidden(rows, is_image, states, states * np.float32(1.01)),
    )


def logsumexp(values: Table) -> Table:
    return np.asarray(np.log(np.exp(values).sum(axis=1)))


def off_by(factor: float, numerics: ReferenceNumerics) -> Table:
    """Logits with an error of `factor` times the reference's own rounding."""
    return np.asarray(numerics.fp32 + factor * (numerics.bf16 - numerics.fp32))


def seen(
    numerics: ReferenceNumerics, values: Table, *, depth: int = TOKENS, are_logits: bool = True
) -> Forced:
    """A server's scores if `values` are its numbers for the golden's tokens.

    It lists the `depth` most likely tokens, and nothing for the token after the answer.
    """
    order = np.argsort(-values[:-1], axis=1)[:, :depth]
    token_ids = np.take_along_axis(numerics.top_tokens[:-1], order, axis=1)
    table = np.take_along_axis(values[:-1], order, axis=1)
    return Forced(CASE, TokenScores(token_ids, table, table.min(axis=1), are_logits), 64)


def measured(numerics: ReferenceNumerics, values: Table) -> ErrorStatistics:
    return ErrorStatistics([compare_logits(seen(numerics, values), numerics)])


def passed_rules(statistics: ErrorStatistics) -> dict[str, bool]:
    return {name: rule(statistics, THRESHOLDS).passed for name, rule in rules.LOGIT_RULES.items()}


# --- the ratios ----------------------------------------------------------------------------------


@given(SEEDS)
def test_numbers_that_are_the_references_have_no_error(seed: int) -> None:
    numerics = golden(seed)
    statistics = measured(numerics, numerics.fp32)
    assert statistics.error_ratio.value == 0
    assert statistics.kl_ratio.value == 0
    assert (statistics.max_abs_error, statistics.flips) == (0, 0)
    assert statistics.cosine_similarity == pytest.approx(1)
    assert all(passed_rules(statistics).values())


@given(SEEDS)
def test_the_references_own_bf16_is_one_rounding_off(seed: int) -> None:
    numerics = golden(seed)
    statistics = measured(numerics, numerics.bf16)
    assert statistics.error_ratio.value == pytest.approx(1)
    assert statistics.kl_ratio.value == pytest.approx(1)
    assert all(passed_rules(statistics).values())


@given(SEEDS, FACTORS)
def test_the_error_ratio_counts_roundings(seed: int, factor: float) -> None:
    numerics = golden(seed)
    ratio = measured(numerics, off_by(factor, numerics)).error_ratio.value
    assert ratio == pytest.approx(abs(factor), abs=1e-9)


@given(SEEDS, FACTORS, st.lists(st.floats(-100, 100), min_size=LENGTH, max_size=LENGTH))
def test_a_constant_added_to_a_position_does_not_move_the_divergence(
    seed: int, factor: float, constants: list[float]
) -> None:
    numerics = golden(seed)
    observed = off_by(factor, numerics)
    there = measured(numerics, observed).kl_ratio.value
    here = measured(numerics, observed + np.array(constants)[:, None]).kl_ratio.value
    assert here == pytest.approx(there, abs=1e-6)


def test_the_divergence_is_kullbacks_and_leiblers() -> None:
    half, quarter = np.zeros((1, 2)), np.array([[math.log(3), 0]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert divergence(half, quarter) == pytest.approx(expected)


@given(SEEDS, st.sampled_from([0, 1, 1.2, 3, 40, -40]))
def test_log_probabilities_get_the_verdicts_of_raw_logits(seed: int, factor: float) -> None:
    numerics = golden(seed)
    values = off_by(factor, numerics)
    raw = compare_logits(seen(numerics, values), numerics)
    listed = seen(numerics, values - logsumexp(values)[:, None], are_logits=False)
    normal = compare_logits(listed, numerics)
    assert normal.exact == pytest.approx(log_softmax(raw.exact))
    assert passed_rules(ErrorStatistics([normal])) == passed_rules(ErrorStatistics([raw]))


def test_an_adaptation_documents_figures_are_over_all_numbers_of_all_cases() -> None:
    cases = [
        compare_logits(seen(numerics, off_by(7, numerics)), numerics)
        for numerics in (golden(1), golden(2))
    ]
    x = np.concatenate([case.observed for case in cases])
    y = np.concatenate([case.exact for case in cases])
    summary = ErrorStatistics(cases).summary()
    assert summary["positions"] == 2 * (LENGTH - 1)
    assert summary["max_abs_error"] == np.abs(x - y).max()
    assert summary["mean_abs_error"] == np.abs(x - y).mean()
    relative = np.sqrt(np.square(x - y).sum() / np.square(y).sum())
    assert summary["relative_error"] == pytest.approx(relative)
    assert summary["cosine_similarity"] == pytest.approx(cosine(x.ravel(), y.ravel()))
    assert summary["lowest_cosine"] == pytest.approx(min(map(cosine, x, y)))
    assert summary["within_1_percent"] == (np.abs(x - y) <= np.abs(y) / 100).mean()
    assert json.loads(json.dumps(summary)) == summary


def test_a_sound_bf16_engine_is_not_within_one_percent_everywhere() -> None:
    numerics = golden()
    summary = measured(numerics, numerics.bf16).summary()
    assert 0 < summary["within_1_percent"] == summary["own_within_1_percent"] < 1
    assert measured(numerics, numerics.fp32).summary()["within_1_percent"] == 1


def test_the_five_most_likely_tokens_are_compared_as_a_set() -> None:
    numerics = golden()
    values = numerics.fp32.copy()
    values[0, [1, 2]] = values[0, [2, 1]]  # another order
    values[1, [4, 5]] = values[1, [5, 4]]  # another set
    assert measured(numerics, values).summary()["top5_match"] == pytest.approx(1 - 1 / (LENGTH - 1))
    hidden = compare_hidden_states(numerics.hidden.fp32, numerics, CASE)
    assert "top5_match" not in ErrorStatistics([hidden]).summary()


def test_the_order_of_a_servers_list_does_not_matter() -> None:
    numerics = golden()
    forced = seen(numerics, numerics.fp32)
    scores = forced.scores
    reverse = dataclasses.replace(
        scores, token_ids=scores.token_ids[:, ::-1], values=scores.values[:, ::-1]
    )
    statistics = ErrorStatistics(
        [compare_logits(dataclasses.replace(forced, scores=reverse), numerics)]
    )
    assert statistics.top5_match == 1


def cosine(left: Table, right: Table) -> float:
    return float((left * right).sum() / np.sqrt((left * left).sum() * (right * right).sum()))


# --- the compared numbers ------------------------------------------------------------------------


def test_the_kept_rows_are_compared_with_what_is_listed_of_them() -> None:
    whole = golden()
    kept = np.array([0, 5, 10, *range(PROMPT - 1, LENGTH)])
    fields = (
        "positions",
        "is_image",
        "top_tokens",
        "fp32",
        "bf16",
        "fp32_logsumexp",
        "bf16_logsumexp",
    )
    sparse = dataclasses.replace(whole, **{name: getattr(whole, name)[kept] for name in fields})
    values = whole.fp32 + np.arange(LENGTH)[:, None]
    case = compare_logits(seen(whole, values), sparse)
    assert case.positions.tolist() == kept[:-1].tolist()
    assert case.observed.tolist() == values[kept[:-1]].tolist()
    assert case.part.tolist() == ["prompt", "image", "prompt", *["answer"] * ANSWER]


@given(SEEDS, st.integers(1, TOKENS), FACTORS)
def test_an_unlisted_token_never_counts_more_than_its_true_error(
    seed: int, depth: int, factor: float
) -> None:
    numerics = golden(seed)
    values = off_by(factor, numerics)
    case = compare_logits(seen(numerics, values, depth=depth), numerics)
    counted = np.abs(case.observed - case.exact)
    true = np.abs(values[:-1] - case.exact)
    assert (counted <= true).all()
    is_listed = values[:-1] >= np.sort(values[:-1], axis=1)[:, [-depth]]
    assert (counted == true)[is_listed].all()


@pytest.mark.parametrize(("floor", "error"), [(7.0, 0.0), (5.0, 0.0), (3.0, 2.0)])
def test_an_unlisted_token_is_at_most_at_the_floor(floor: float, error: float) -> None:
    numerics = dataclasses.replace(golden(), fp32=np.tile([20.0, 5.0], (LENGTH, 1)))
    token_ids, values = numerics.top_tokens[:-1, :1], np.full((LENGTH - 1, 1), 20.0)
    scores = TokenScores(token_ids, values, np.full(LENGTH - 1, floor), True)
    numerics = dataclasses.replace(
        numerics, top_tokens=numerics.top_tokens[:, :2], bf16=numerics.fp32
    )
    case = compare_logits(Forced(CASE, scores, 64), numerics)
    assert np.abs(case.observed - case.exact).tolist() == [[0.0, error]] * (LENGTH - 1)


def test_of_a_server_that_lists_few_tokens_half_as_many_are_compared() -> None:
    numerics = golden()
    forced = dataclasses.replace(seen(numerics, numerics.fp32), top_k=8)
    case = compare_logits(forced, numerics)
    assert case.exact.tolist() == numerics.fp32[:-1, :4].tolist()
    assert (
        "raw logits of 4 tokens at 19 positions"
        in rules.judge_error_ratio(ErrorStatistics([case]), THRESHOLDS).reason
    )


def test_a_verdict_says_that_log_probabilities_were_compared() -> None:
    numerics = golden()
    forced = seen(numerics, numerics.fp32 - logsumexp(numerics.fp32)[:, None], are_logits=False)
    statistics = ErrorStatistics([compare_logits(forced, numerics)])
    assert "log-probabilities of 6 tokens" in rules.judge_error_ratio(statistics, THRESHOLDS).reason


@pytest.mark.parametrize("missing", [2, -1])
def test_logits_of_another_sequence_are_not_compared(missing: int) -> None:
    numerics, width = golden(), 1
    length = LENGTH - missing
    scores = TokenScores(
        np.zeros((length, width), dtype=np.int64), np.zeros((length, width)), np.zeros(length), True
    )
    with pytest.raises(PreconditionError, match=f"^{CASE}: .* did not see the same input"):
        compare_logits(Forced(CASE, scores, 64), numerics)


def test_hidden_states_are_compared_at_the_rows_that_are_kept() -> None:
    numerics = golden()
    whole, kept = numerics.hidden, np.array([1, 4, LENGTH - 1])
    hidden = ReferenceHidden(kept, whole.is_image[kept], whole.fp32[kept], whole.bf16[kept])
    states = whole.fp32.copy()
    states[4] += 1
    case = compare_hidden_states(states, dataclasses.replace(numerics, hidden=hidden), CASE)
    assert case.part.tolist() == ["prompt", "image", "answer"]
    assert case.square_errors == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("shape", [(LENGTH - 1, 5), (LENGTH + 1, 5), (LENGTH, 4), (LENGTH, 0)])
def test_hidden_states_of_another_shape_are_not_compared(shape: tuple[int, int]) -> None:
    with pytest.raises(PreconditionError, match=f"^{CASE}: .* did not see the same input"):
        compare_hidden_states(np.zeros(shape, dtype=np.float32), golden(), CASE)


# --- the rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", rules.LOGIT_RULES)
@given(st.integers(0, LENGTH - 2), st.integers(0, TOKENS - 1))
def test_a_logit_that_is_nan_breaks_every_rule(rule: str, row: int, token: int) -> None:
    numerics = golden()
    values = numerics.fp32.copy()
    values[row, token] = np.nan
    assert not rules.LOGIT_RULES[rule](measured(numerics, values), THRESHOLDS).passed


@pytest.mark.parametrize("rule", rules.HIDDEN_STATE_RULES)
def test_a_hidden_state_that_is_nan_breaks_every_rule(rule: str) -> None:
    numerics = golden()
    states = numerics.hidden.fp32.copy()
    states[3, 2] = np.nan
    statistics = ErrorStatistics([compare_hidden_states(states, numerics, CASE)])
    assert not rules.HIDDEN_STATE_RULES[rule](statistics, HIDDEN_THRESHOLDS).passed


def with_turned_choice(margin: float) -> ErrorStatistics:
    """Logits whose most likely token at one position is another; y prefers its own by a margin."""
    numerics = golden()
    fp32 = np.tile([15.0, 5.0, 4.0, 3.0, 2.0, 1.0], (LENGTH, 1))
    fp32[4, 1] = 15.0 - margin
    numerics = dataclasses.replace(numerics, fp32=fp32, bf16=fp32 + ROUNDING)
    values = fp32.copy()
    values[4, [0, 1]] = fp32[4, [1, 0]]
    return measured(numerics, values)


def test_another_choice_at_a_near_tie_is_excused() -> None:
    statistics = with_turned_choice(margin=0.2)
    assert (statistics.flips, statistics.unexcused_flips) == (1, 0)
    verdict = rules.judge_top1_flips(statistics, THRESHOLDS)
    assert verdict.passed
    assert "1 other most likely tokens, 1 of them at near-ties" in verdict.reason


def test_another_choice_where_the_reference_was_sure_is_not() -> None:
    statistics = with_turned_choice(margin=0.4)
    assert (statistics.flips, statistics.unexcused_flips) == (1, 1)
    verdict = rules.judge_top1_flips(statistics, THRESHOLDS)
    assert not verdict.passed
    assert verdict.measured == 1 / (LENGTH - 1)
    lenient = dataclasses.replace(THRESHOLDS, flips=1 / (LENGTH - 1))
    assert rules.judge_top1_flips(statistics, lenient).passed


def test_a_choice_that_the_reference_does_not_even_list_is_not_excused() -> None:
    numerics = golden()
    forced = seen(numerics, numerics.fp32)
    forced.scores.token_ids[4, 0] = 999
    statistics = ErrorStatistics([compare_logits(forced, numerics)])
    assert (statistics.flips, statistics.unexcused_flips) == (1, 1)


@pytest.mark.parametrize(
    ("own", "error", "threshold"),
    [(0.2, 0.9, 1.0), (0.2, 1.1, 1.0), (3.0, 5.9, 6.0), (3.0, 6.1, 6.0)],
)
def test_the_largest_error_may_be_twice_the_references_own(
    own: float, error: float, threshold: float
) -> None:
    numerics = golden()
    fp32 = numerics.fp32
    numerics = dataclasses.replace(numerics, bf16=fp32 + np.eye(LENGTH, TOKENS) * own)
    statistics = measured(numerics, fp32 - np.eye(LENGTH, TOKENS) * error)
    verdict = rules.judge_max_abs_error(statistics, THRESHOLDS)
    assert (verdict.measured, verdict.threshold) == pytest.approx((error, threshold))
    assert verdict.passed == (error < threshold)
    assert ("twice the reference's own bf16 error of 3" in verdict.reason) == (own == 3.0)


def test_float32_has_an_error_of_at_most_a_hundredth_of_the_rounding() -> None:
    numerics = golden()
    for factor, passes in ((0.009, True), (0.011, False), (math.nan, False)):
        assert rules.judge_float32(measured(numerics, off_by(factor, numerics))).passed == passes


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1.1, r"is right \(R = 1.10\): look at the engine"),
        (4.0, r"is wrong too \(R = 4.00\): look at the device's operators"),
        (math.nan, r"is wrong too \(R = nan\)"),
        ("no torch_npu", r"did not run: no torch_npu"),
    ],
)
def test_a_failure_says_whether_operators_are_wrong_too(ratio: float | str, said: str) -> None:
    failed = rules.judge_error_ratio(measured(golden(), off_by(9, golden())), THRESHOLDS)
    explained = rules.with_operators(failed, ratio)
    assert explained.details[:-1] == failed.details
    assert re.fullmatch(rf"Transformers on the same device {said}.*", explained.details[-1])
    assert not explained.passed


# --- over cases ----------------------------------------------------------------------------------


def case(
    errors: list[float], case_id: str = CASE, part: str | list[str] = "answer", first: int = 0
) -> CaseComparison:
    """A case with these errors at its positions, in roundings."""
    exact = np.tile([4.0, 3.0, 2.0], (len(errors), 1))
    rounding = ROUNDING * np.array([1, -1, 1])
    return CaseComparison(
        case_id=case_id,
        numbers="raw logits of 3 tokens",
        positions=np.arange(first, first + len(errors)),
        part=np.broadcast_to(part, len(errors)),
        exact=exact,
        rounded=exact + rounding,
        observed=exact + np.array(errors)[:, None] * rounding,
        flip_margin=np.zeros(len(errors)),
        tie=np.zeros(len(errors)),
    )


@given(st.lists(st.lists(st.floats(0.1, 20), min_size=1, max_size=3), min_size=1, max_size=12))
def test_the_interval_has_the_value_over_all_positions_in_it(errors: list[list[float]]) -> None:
    ratio = ErrorStatistics([case(positions) for positions in errors]).error_ratio
    assert ratio.value == pytest.approx(np.sqrt(np.square(np.concatenate(errors)).mean()))
    assert ratio.low - 1e-9 <= ratio.value <= ratio.high + 1e-9


def test_one_bad_case_of_ten_gives_a_wide_interval_and_ten_alike_a_narrow_one() -> None:
    alike = ErrorStatistics([case([1.0, 1.2])] * 10).error_ratio
    assert (alike.low, alike.high) == pytest.approx((alike.value, alike.value))
    one_bad = ErrorStatistics([case([1.0, 1.2])] * 9 + [case([9.0, 9.0])]).error_ratio
    assert one_bad.low < 0.5 * one_bad.value
    assert one_bad.high > 1.5 * one_bad.value


def test_the_interval_is_over_cases_not_over_positions() -> None:
    ratio = ErrorStatistics([case([0.0, 0.5, 9.0])]).error_ratio
    assert ratio.low == ratio.value == ratio.high


def test_the_interval_is_the_same_each_time() -> None:
    cases = [case([error]) for error in np.geomspace(1, 9, 20).tolist()]
    assert ErrorStatistics(cases).error_ratio == ErrorStatistics(cases).error_ratio
    assert ErrorStatistics(cases).kl_ratio == ErrorStatistics(cases).kl_ratio


# --- the location of the error -------------------------------------------------------------------

PARTS = ["prompt", "image", "image", "prompt", "answer", "answer"]
VISION = "only image positions are wrong: look at the vision tower and its inputs"
LANGUAGE = "image positions are right, text positions are wrong: look at the language model"


@pytest.mark.parametrize(
    ("errors", "part", "suspect"),
    [
        ([1, 9, 9, 1, 1, 1], PARTS, VISION),
        ([9, 1, 1, 9, 9, 9], PARTS, LANGUAGE),
        ([1, 1, 1, 1, 9, 9], PARTS, LANGUAGE),
        ([1, math.nan, 1, 1, 1, 1], PARTS, VISION),
        ([9, 9, 9, 9, 9, 9], PARTS, None),
        ([1, 1, 1, 1, 1, 1], PARTS, None),
        ([9, 9, 9, 9, 9, 9], "answer", None),
    ],
)
def test_the_parts_that_are_off_name_the_suspect(
    errors: list[float], part: str | list[str], suspect: str | None
) -> None:
    lines = rules.error_location(ErrorStatistics([case(errors, part=part)]))
    assert {VISION, LANGUAGE} & set(lines) == ({suspect} if suspect else set())


def test_the_parts_are_shown_with_their_ratios() -> None:
    both = ErrorStatistics([case([1, 3, 3, 1, 2, 2], part=PARTS), case([2, 2])])
    assert rules.error_location(both)[0].endswith(": image 3.00, prompt 1.00, answer 2.00")
    assert rules.error_location(ErrorStatistics([case([2, 2])]))[0].endswith(": answer 2.00")


def test_the_earliest_position_that_is_off_is_named() -> None:
    cases = [
        case([1, 1, 1, 1, 1, 9], "text/capital", PARTS),
        case([1, 1, 5, 1, 9, 9], "image/报告", PARTS),
        case([1, 1, 3, 1, 1, 1], "image/sound", PARTS),
    ]
    assert rules.error_location(ErrorStatistics(cases))[1] == (
        "the first error above 4 roundings is 0.5, at position 3 (image) of image/报告; "
        "2 of 3 cases have such an error"
    )


@pytest.mark.parametrize("error", [9.0, math.nan])
def test_the_position_counts_tokens_of_the_sequence_not_kept_rows(error: float) -> None:
    onset = ErrorStatistics([case([1, 1, error], first=30)]).onset
    assert onset is not None
    assert onset.position == 33


def test_nothing_is_named_where_nothing_is_off() -> None:
    statistics = ErrorStatistics([case([1, 2, 3, 1, 2, 3], part=PARTS)])
    assert statistics.onset is None
    assert not any("first error" in line for line in rules.error_location(statistics))


@pytest.mark.parametrize(("positions", "images"), [(125, 8), (124, 8), (125, 7)])
def test_few_positions_or_images_are_said_to_be_few(positions: int, images: int) -> None:
    part = ["image", *["answer"] * (positions - 1)]
    cases = [case([1.0] * positions, part=part)] * images
    cases += [case([1.0] * positions)] * (8 - images)
    reason = rules.judge_error_ratio(ErrorStatistics(cases), THRESHOLDS).reason
    assert (
        f"raw logits of 3 tokens at {8 * positions} positions of 8 cases, {images} with an image"
        in reason
    )
    is_enough = (positions, images) == (125, 8)
    assert ("1000 positions and 8 images are recommended" in reason) == (not is_enough)


def test_the_report_has_the_places_of_all_image_tokens() -> None:
    numerics = golden(0)
    prompt = [9] * int(numerics.positions[numerics.first_answer_row])
    for position in numerics.positions[numerics.is_image].tolist():
        prompt[position] = 5
    prompt[-1] = 5  # an image token at a position that the golden does not keep as one
    forced = dataclasses.replace(seen(numerics, numerics.fp32), prompt_token_ids=tuple(prompt))
    runs = compare_logits(forced, numerics).image_runs
    found = [position for first, count in runs for position in range(first, first + count)]
    assert found == [position for position, token in enumerate(prompt) if token == 5]
    assert len(runs) == 2
    assert compare_logits(seen(numerics, numerics.fp32), numerics).image_runs == ()


def test_the_report_has_the_error_along_each_sequence() -> None:
    along = per_position(case([1, 3, 0, 1, 2, 2], part=PARTS, first=7))
    assert along == {
        "case": CASE,
        "position": [7, 8, 9, 10, 11, 12],
        "part": PARTS,
        "error": [0.1, 0.3, 0.0, 0.1, 0.2, 0.2],
        "rounding": [0.1] * 6,
        "image_runs": [],
    }
    statistics = ErrorStatistics([case([1]), case([2])])
    evidence = rules.judge_error_ratio(statistics, THRESHOLDS).evidence
    assert evidence["per_position"] == [per_position(one) for one in statistics.comparisons]
    assert json.loads(json.dumps(evidence)) == evidence


# --- single cases, single tokens, generated answers ----------------------------------------------


@given(SEEDS)
def test_one_image_passes_up_to_twice_the_rounding(seed: int) -> None:
    numerics = golden(seed)
    for factor, passes in ((1.9, True), (2.1, False), (math.nan, False)):
        verdict = rules.judge_image(
            compare_logits(seen(numerics, off_by(factor, numerics)), numerics)
        )
        assert verdict.passed == passes


def test_an_error_at_image_positions_alone_fails_one_image() -> None:
    numerics = golden()
    values = np.where(numerics.is_image[:, None], off_by(3.0, numerics), off_by(0.5, numerics))
    comparison = compare_logits(seen(numerics, values), numerics)
    assert rules.judge_image(comparison).measured == pytest.approx(3.0)
    assert "look at the vision tower" in "\n".join(rules.judge_image(comparison).details)


@pytest.mark.parametrize(("count", "passes"), [(1, True), (3, True), (4, False)])
def test_few_image_positions_are_judged_with_the_others_alone(count: int, passes: bool) -> None:
    numerics = dataclasses.replace(golden(), is_image=np.arange(LENGTH) < count)
    values = np.where(numerics.is_image[:, None], off_by(2.5, numerics), off_by(0.5, numerics))
    verdict = rules.judge_image(compare_logits(seen(numerics, values), numerics))
    assert verdict.passed == passes
    assert ("too few to judge by themselves" in verdict.reason) == passes
    values = np.where(numerics.is_image[:, None], off_by(20.0, numerics), values)
    assert not rules.judge_image(compare_logits(seen(numerics, values), numerics)).passed


@given(SEEDS, st.booleans())
def test_a_token_that_is_off_everywhere_is_named(seed: int, are_logits: bool) -> None:
    numerics = dataclasses.replace(
        golden(seed), top_tokens=np.tile(np.arange(TOKENS) + 40, (LENGTH, 1))
    )
    right = ErrorStatistics(
        [compare_logits(seen(numerics, off_by(1.0, numerics), are_logits=True), numerics)]
    )
    assert rules.judge_tokens(right).passed
    values = off_by(1.0, numerics)
    values[:, 3] += 2 * ROUNDING
    off = compare_logits(seen(numerics, values, are_logits=are_logits), numerics)
    verdict = rules.judge_tokens(ErrorStatistics([off]))
    assert not verdict.passed
    assert "that of token 43;" in verdict.reason


def test_tokens_that_are_listed_too_rarely_give_no_verdict() -> None:
    numerics = golden()
    with pytest.raises(PreconditionError, match="no token is listed at 16 or more"):
        rules.judge_tokens(measured(numerics, numerics.fp32))


def generated(numerics: ReferenceNumerics, values: Table, tokens: tuple[int, ...]) -> Completion:
    """An answer whose lists have these logits, at the positions of the golden's answer."""
    rows = slice(numerics.first_answer_row, numerics.first_answer_row + len(tokens))
    top = TopLogprobs(numerics.top_tokens[rows], log_softmax(values[rows]))
    return Completion(CASE, "", tokens, "stop", None, top, seconds=0.1)


@given(SEEDS)
def test_generation_differs_from_the_forced_answer_by_rounding_only(seed: int) -> None:
    numerics = golden(seed)
    forced = seen(numerics, numerics.fp32)
    tokens = numerics.token_ids
    for factor, passes in ((0.0, True), (1.0, True), (9.0, False)):
        answer = generated(numerics, off_by(factor, numerics), tokens)
        verdict = judge_generation(answer, forced, numerics, Thresholds())
        assert verdict.passed == passes
        assert verdict.evidence["positions"] == ANSWER
    # Behind another token than the golden's, the two sides are about different texts.
    values = off_by(0.0, numerics)
    values[numerics.first_answer_row + 3 :] += np.arange(TOKENS) * 9
    other = (*tokens[:2], 99, *tokens[3:])
    verdict = judge_generation(generated(numerics, values, other), forced, numerics, Thresholds())
    assert (verdict.passed, verdict.evidence["positions"]) == (True, 3)


@pytest.mark.parametrize("begin", [None, 0, 130, 290])
def test_an_error_far_behind_the_prompt_shows_in_a_long_answer(begin: int | None) -> None:
    """Of 300 tokens, as few as ten are wrong: over the whole answer it would not show."""
    count, numerics = 300, golden()
    chance = np.random.default_rng(0)
    tokens = np.tile(np.arange(TOKENS), (PROMPT - 1 + count, 1))
    logits = chance.normal(0, 3, tokens.shape)
    top = log_softmax(logits[PROMPT - 1 :])
    if begin is not None:
        top[begin : begin + 10] = chance.normal(0, 9, (10, TOKENS))
    floor = np.full(len(tokens), -99.0)
    forced = Forced(CASE, TokenScores(tokens, logits, floor, are_logits=True), TOKENS)
    lists = TopLogprobs(tokens[PROMPT - 1 :], top)
    answer = Completion(CASE, "", (0,) * count, "length", None, lists, seconds=1.0)
    verdict = judge_long_answer(answer, forced, numerics, Thresholds())
    assert verdict.passed == (begin is None)
    assert verdict.evidence["tokens"] == count
    if begin is not None:
        start = begin // 128 * 128 + 1
        assert f"of tokens {start} to " in verdict.reason
        assert f"it begins at token {start} or soon after it" in verdict.details


def test_an_answer_that_ends_early_is_no_long_answer() -> None:
    answer = generated(golden(), golden().fp32, golden().token_ids)
    require_length(answer, ANSWER)
    with pytest.raises(PreconditionError, match=f"{ANSWER} of 1024 tokens.*ignore_eos"):
        require_length(answer, 1024)


def test_an_answer_without_lists_gives_no_verdict() -> None:
    numerics = golden()
    answer = Completion(CASE, "", numerics.token_ids, "stop", None, None, seconds=0.1)
    with pytest.raises(PreconditionError, match="listed no log-probabilities"):
        judge_generation(answer, seen(numerics, numerics.fp32), numerics, Thresholds())
