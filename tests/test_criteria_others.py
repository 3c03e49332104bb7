"""Rules of serving.* and determinism.*, verdicts, and the degeneration guard."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm import Sampling
from pytest_ascend_vlm.criteria import serving
from pytest_ascend_vlm.criteria.degeneration import degeneration
from pytest_ascend_vlm.criteria.determinism import (
    distinct,
    judge_agreement,
    judge_prefix_cache,
    judge_repeat,
    judge_seeds,
    least_certain,
    repeat_chance,
    runs_to_see_sampling,
)
from pytest_ascend_vlm.criteria.verdict import at_least, at_most, checklist
from pytest_ascend_vlm.engines.logprobs import top_logprobs
from pytest_ascend_vlm.errors import ConfigurationError, PreconditionError
from pytest_ascend_vlm.observation.answers import (
    Completion,
    OwnEntry,
    Refusal,
    TopLogprobs,
    Usage,
)
from pytest_ascend_vlm.observation.streams import Stream

PAGE = "季度报告 2024\n收入 1,234.50 元\n增长 12.5%\n"
GOOD = Completion("text/a", "巴黎。", (1, 2, 3), "stop", Usage(10, 3, 13), None, seconds=0.1)
REFUSAL = Refusal(400, '{"error": {}}', is_json_error=True)


def answer(text: str, **changes: object) -> Completion:
    tokens = tuple(text.encode())
    usage = Usage(10, len(tokens), 10 + len(tokens))
    changed = dataclasses.replace(GOOD, text=text, token_ids=tokens, usage=usage)
    return dataclasses.replace(changed, **changes)  # type: ignore[arg-type]


# --- verdicts ------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_at_least_and_at_most_agree_with_the_order_of_numbers(
    value: float, threshold: float
) -> None:
    assert at_least(value, threshold, "rate", "").passed == (value >= threshold)
    assert at_most(value, threshold, "rate", "").passed == (value <= threshold)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_the_margin_is_negative_only_beyond_the_threshold(value: float, threshold: float) -> None:
    for verdict in (at_least(value, threshold, "rate", ""), at_most(value, threshold, "rate", "")):
        assert (verdict.margin >= 0) == verdict.passed


@pytest.mark.parametrize("threshold", [0.0, 1.0, math.inf, -math.inf, math.nan])
def test_what_is_not_a_number_never_passes(threshold: float) -> None:
    assert not at_least(math.nan, threshold, "rate", "").passed
    assert not at_most(math.nan, threshold, "rate", "").passed


def test_of_several_checks_the_broken_ones_are_named() -> None:
    verdict = checklist({"one": None, "two": "it is 3", "three": None})
    assert not verdict.passed
    assert verdict.measured == pytest.approx(2 / 3)
    assert verdict.details == ("two: it is 3",)
    assert verdict.evidence["checks"] == {"one": "holds", "two": "it is 3", "three": "holds"}


@pytest.mark.parametrize("measured", [0.0, 1.0])
def test_a_verdict_is_no_condition(measured: float) -> None:
    with pytest.raises(TypeError, match=r"use verdict\.passed"):
        assert at_least(measured, 0.5, "rate", "")


def test_what_cannot_be_a_verdict_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no checks"):
        checklist({})
    with pytest.raises(ConfigurationError, match=r"details=\(line,\)"):
        at_least(0, 1, "rate", "", "a text")  # type: ignore[arg-type]


# --- the degeneration guard ----------------------------------------------------------------------

ARRAYS = st.lists(st.floats(allow_nan=True), min_size=1, max_size=4).map(
    lambda row: TopLogprobs(np.arange(len(row))[None, :], np.array([row]))
)
HOSTILE = st.one_of(st.text(max_size=200), st.text(st.sampled_from("!a 的\n\\(["), max_size=400))


@given(
    HOSTILE,
    st.sampled_from(["stop", "length", None]),
    st.one_of(st.none(), HOSTILE),
    st.one_of(st.none(), ARRAYS),
)
def test_the_guard_never_raises(
    text: str, finish: str | None, expected: str | None, top: TopLogprobs | None
) -> None:
    found = degeneration(answer(text, finish_reason=finish, top=top), expected)
    assert found is None or found


@pytest.mark.parametrize(
    ("text", "finish", "problem"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("!" * 16, "stop", "a run of 16 times '!'"),
        ("法国" + "。" * 20, "stop", "a run of 20 times '。'"),
        ("的" * 40, "length", "repeated 40 times"),
        ("the page " * 30, "length", "repeated 30 times"),
        ("引言。" + "第一行\n" * 30, "length", "until the length limit"),
        ("\ufffd" * 30, "stop", "a run of 30"),
    ],
)
def test_what_is_no_answer_is_found(text: str, finish: str, problem: str) -> None:
    found = degeneration(answer(text, finish_reason=finish))
    assert found is not None
    assert problem in found


@pytest.mark.parametrize(
    ("text", "finish"),
    [
        ("巴黎。", "stop"),
        ("!" * 15, "stop"),
        ("目录 " + "." * 60 + " 7", "stop"),
        ("|" + "-" * 40 + "|", "length"),
        ("0" * 40, "stop"),
        ("的" * 40, "stop"),  # finished before the length limit
        (PAGE * 3, "length"),
        ("long text " * 2 + PAGE, "length"),
    ],
)
def test_an_answer_is_let_through(text: str, finish: str) -> None:
    assert degeneration(answer(text, finish_reason=finish)) is None


def test_what_the_reference_does_too_is_the_models_own() -> None:
    looped = answer("the page " * 30, finish_reason="length")
    assert degeneration(looped, "the page " * 28) is None
    assert degeneration(looped, "the page of the report") is not None


def test_an_empty_answer_is_excused_by_nothing() -> None:
    assert degeneration(answer(""), "!" * 20) is not None


def test_a_log_probability_that_is_nan_is_found_and_padding_is_not_one() -> None:
    ids, values = np.array([[5, -1]]), np.array([[-0.1, np.nan]])
    assert degeneration(answer("a", top=TopLogprobs(ids, values))) is None
    broken = TopLogprobs(ids, np.array([[np.nan, np.nan]]))
    assert "NaN" in str(degeneration(answer("a", top=broken)))


# --- serving -------------------------------------------------------------------------------------


def test_the_phase_that_exceeds_its_budget_is_named() -> None:
    verdict = serving.judge_start(
        {"start": 10.0, "weights": 90.0}, {"start": 300.0, "weights": 60.0}, 512.0
    )
    assert not verdict.passed
    assert verdict.measured == 1.5
    assert "weights" in verdict.reason
    assert verdict.evidence["memory_mib"] == 512.0


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"finish_reason": None}, "finish reason"),
        ({"finish_reason": "abort"}, "finish reason"),
        ({"usage": None}, "usage adds up"),
        ({"usage": Usage(10, 3, 14)}, "usage adds up"),
        ({"usage": Usage(0, 3, 3)}, "usage adds up"),
        ({"usage": Usage(10, 0, 10)}, "usage adds up"),
        ({"usage": Usage(10, 2, 12)}, "usage adds up"),
        ({"prompt_token_ids": tuple(range(11))}, "usage adds up"),
        ({"top": top_logprobs([{1: -0.1, 2: -3.0}, {2: -0.1}])}, "each token is the likeliest"),
        (
            {"top": top_logprobs([{1: -0.1}, {2: -0.1}, {9: -0.1, 3: -0.2}])},
            "each token is the likeliest",
        ),
        (
            {"top": top_logprobs([{1: -0.1}, {2: -0.1}, {9: -0.1, 8: -9.0}])},
            "each token is the likeliest",
        ),
    ],
)
def test_an_unsound_answer_is_named(changes: dict[str, object], broken: str) -> None:
    assert serving.judge_answer(GOOD).passed
    verdict = serving.judge_answer(dataclasses.replace(GOOD, **changes))  # type: ignore[arg-type]
    assert not verdict.passed
    assert broken in verdict.reason


def test_a_tie_is_the_likeliest_too() -> None:
    tied = top_logprobs([{9: -0.7, 1: -0.7}, {2: -0.1, 9: -4.0}, {3: 0.0}])
    assert serving.judge_answer(dataclasses.replace(GOOD, top=tied)).passed


def test_lists_that_are_not_there_do_not_hold() -> None:
    likeliest = "each token is the likeliest of its list"
    silent = dataclasses.replace(GOOD, token_ids=None, top=top_logprobs([{9: -0.1}]))
    verdict = serving.judge_answer(silent)
    assert verdict.passed
    assert likeliest not in verdict.evidence["checks"]
    right = dataclasses.replace(GOOD, top=top_logprobs([{1: -0.1}, {2: -0.1}, {3: -0.1}]))
    assert serving.judge_answer(right).evidence["checks"][likeliest] == "holds"


def test_counts_of_the_reply_are_compared_with_its_tokens() -> None:
    whole = dataclasses.replace(GOOD, prompt_token_ids=tuple(range(10)))
    assert serving.judge_answer(whole).passed


def test_counted_tokens_take_precedence_over_usage() -> None:
    counted = dataclasses.replace(GOOD, prompt_token_ids=tuple(range(14)))
    assert counted.prompt_tokens == 14
    assert serving.judge_media(counted, 6, "image").evidence["image_tokens"] == 8


def test_an_image_has_to_cost_tokens() -> None:
    assert serving.judge_media(GOOD, 6, "image").evidence["image_tokens"] == 4
    assert not serving.judge_media(GOOD, 10, "image").passed
    assert not serving.judge_media(GOOD, None, "image").passed


@pytest.mark.parametrize(
    ("refusal", "problem"),
    [
        (GOOD, "it was answered: '巴黎。'"),
        (Refusal(500, "{}", is_json_error=True), "HTTP 500 instead of a 4xx"),
        (Refusal(302, "{}", is_json_error=True), "HTTP 302 instead of a 4xx"),
        (Refusal(400, "<html>", is_json_error=False), "no JSON error: <html>"),
    ],
)
def test_only_a_json_4xx_is_a_refusal(refusal: Completion | Refusal, problem: str) -> None:
    assert serving.client_error(REFUSAL) is None
    assert problem in str(serving.client_error(refusal))
    assert not serving.judge_refusals({"bad": refusal}, GOOD).passed


def test_a_server_that_answers_nothing_afterwards_did_not_refuse() -> None:
    assert serving.judge_refusals({"bad": REFUSAL}, GOOD).passed
    assert not serving.judge_refusals({"bad": REFUSAL}, Refusal(500, "", False)).passed


@pytest.mark.parametrize(
    ("within", "beyond", "holds"),
    [(GOOD, REFUSAL, True), (REFUSAL, REFUSAL, False), (GOOD, GOOD, False)],
)
def test_the_image_limit_holds_from_both_sides(
    within: Completion | Refusal, beyond: Completion | Refusal, holds: bool
) -> None:
    assert serving.judge_image_limit(within, beyond, 1).passed == holds


@pytest.mark.parametrize(
    ("cut", "stopped", "several", "broken"),
    [
        ({}, {}, 2, None),
        ({"finish_reason": "stop"}, {}, 2, "max_tokens"),
        ({"usage": Usage(10, 6, 16)}, {}, 2, "max_tokens"),
        ({}, {"text": "to the end"}, 2, "stop"),
        ({}, {"finish_reason": "length"}, 2, "stop"),
        ({}, {}, 1, "n"),
        ({}, {}, 0, "n"),
    ],
)
def test_each_limit_is_judged_by_itself(
    cut: dict[str, object], stopped: dict[str, object], several: int, broken: str | None
) -> None:
    verdict = serving.judge_limits(
        answer("abcde", **{"finish_reason": "length", **cut}),
        Sampling(max_tokens=5),
        dataclasses.replace(answer("to the "), **stopped),  # type: ignore[arg-type]
        "end",
        [dataclasses.replace(GOOD, usage=Usage(10, 3 * several, 10 + 3 * several))] * several,
    )
    assert verdict.passed == (broken is None)
    assert broken is None or verdict.reason.endswith(f": {broken}")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "usage with n: usage has 3 completion tokens, 2 answers have 6"),
        ({"usage": Usage(10, 6, 16)}, None),
        ({"usage": None}, None),
        ({"token_ids": None}, None),
    ],
)
def test_usage_counts_the_tokens_of_both_answers(
    changes: dict[str, Any], problem: str | None
) -> None:
    both = [dataclasses.replace(GOOD, **changes)] * 2
    cut = answer("abcde", finish_reason="length")
    verdict = serving.judge_limits(cut, Sampling(max_tokens=5), answer("to the "), "end", both)
    assert verdict.details == (() if problem is None else (problem,))


def test_a_stream_has_to_add_up_in_text_finish_reason_and_usage() -> None:
    assert serving.judge_stream(GOOD, GOOD, [IN_TIME]).passed
    for changes in ({"text": "巴"}, {"finish_reason": "length"}):
        streamed = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
        assert not serving.judge_stream(streamed, GOOD, [IN_TIME]).passed


@pytest.mark.parametrize(
    ("usage", "problem"),
    [
        (None, None),
        (GOOD.usage, None),
        (
            Usage(10, 0, 10),
            "completion_tokens: streamed 0, whole 3; total_tokens: streamed 10, whole 13",
        ),
        (Usage(9, 3, 13), "prompt_tokens: streamed 9, whole 10"),
        (Usage(10, 2, 13), "completion_tokens: streamed 2, whole 3"),
        (Usage(10, 3, 12), "total_tokens: streamed 12, whole 13"),
    ],
)
def test_a_stream_has_to_report_the_same_usage(usage: Usage | None, problem: str | None) -> None:
    streamed = dataclasses.replace(GOOD, usage=usage)
    verdict = serving.judge_stream(streamed, GOOD, [IN_TIME])
    assert verdict.details == ((f"usage: {problem}",) if problem else ())


LISTS = top_logprobs([{1: -0.1, 4: -3.0}, {2: -0.2, 4: -3.0}, {3: -0.3}])
OWN = (OwnEntry(1, -0.1, -0.1), OwnEntry(2, -0.2, -0.2), OwnEntry(3, -0.3, -0.3))
LISTED = dataclasses.replace(GOOD, top=LISTS, own=OWN)


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (OwnEntry(2, -0.2004, -0.2), None),  # rounded on its way
        (OwnEntry(2, None, -0.2), None),
        (OwnEntry(2, -9999.0, None), None),  # vLLM's number for a token that is not listed
        (OwnEntry(2, -3.0, -0.2), "token 2 of the answer has the log-probability -3, but -0.2 in"),
        (OwnEntry(4, -3.0, -3.0), "token 2 of the answer is 2, but its entry is of 4"),
    ],
)
def test_the_entry_of_a_token_has_to_be_that_of_its_list(
    second: OwnEntry, problem: str | None
) -> None:
    verdict = serving.judge_answer(dataclasses.replace(LISTED, own=(OWN[0], second, OWN[2])))
    assert verdict.passed == (problem is None)
    assert problem is None or problem in verdict.details[0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"own": (*OWN[:2], OwnEntry(3, -0.7, -0.7))}, None),
        ({"own": (*OWN[:2], OwnEntry(3, -0.9, -0.9))}, "those of token 3 differ by 0.6 nats"),
        ({"own": (*OWN[:2], OwnEntry(3, None, None))}, None),
        ({"own": OWN[:2]}, "they differ at token 3: 2 tokens are streamed with them, the whole"),
        ({"own": (OwnEntry(9, -0.1, None), *OWN[1:])}, "they differ at token 1: 3 tokens"),
        ({"top": None, "own": ()}, "the stream has none"),
        (
            {"top": top_logprobs([{1: -0.1, 4: -6.0}, {2: -0.2, 4: -3.0}, {3: -0.3}])},
            "those of token 1 differ by",
        ),
    ],
)
def test_a_stream_has_to_have_the_same_log_probabilities(
    changes: dict[str, Any], problem: str | None
) -> None:
    verdict = serving.judge_stream(dataclasses.replace(LISTED, **changes), LISTED, [IN_TIME])
    assert verdict.passed == (problem is None)
    assert problem is None or verdict.details[0].startswith(f"log-probabilities: {problem}")


def test_a_server_without_log_probabilities_streams_none() -> None:
    bare = dataclasses.replace(LISTED, top=None, own=())
    assert serving.judge_stream(LISTED, bare, [IN_TIME]).passed
    # Of another text they must differ, and the text is the finding.
    other = dataclasses.replace(bare, text="another")
    assert serving.judge_stream(other, LISTED, [IN_TIME]).reason.endswith("failed: text")


def stream(*arrivals: float, **more: Any) -> Stream:
    """An answer whose first token takes 0.2 s and whose 64 tokens take 1 s."""
    return Stream(arrivals, **{"seconds": 1.0, "tokens": 64, "one_token_seconds": 0.2, **more})


def in_parts(count: int, **more: Any) -> Stream:
    """The same, of which a proxy passes on N equal parts."""
    ends = (0.2 + 0.8 * (part + 1) / count for part in range(count))
    return stream(*(end for end in ends for _ in range(64 // count)), **more)


IN_TIME, AT_THE_END, IN_HALVES = in_parts(64), in_parts(1), in_parts(2)


@pytest.mark.parametrize(
    ("seen", "lateness"),
    [
        (IN_TIME, 1 / 128),
        (AT_THE_END, 1 / 2),
        (IN_HALVES, 1 / 4),
        (in_parts(4), 1 / 8),
        # A slow prompt delays all pieces, but not the time of `/metrics`.
        (in_parts(1, one_token_seconds=0.7), 1 / 2),
        (in_parts(64, one_token_seconds=0.7), 1 / 128),
        (in_parts(1, decode_seconds=0.8), 1 / 2),
        (in_parts(64, decode_seconds=0.8), 1 / 128),
        # The engine makes them within 0.1 s of the whole second.
        (stream(*[0.95] * 64, decode_seconds=0.1), 0.0),
    ],
)
def test_lateness_is_the_mean_delay_of_a_piece(seen: Stream, lateness: float) -> None:
    assert seen.lateness == pytest.approx(lateness, abs=0.008)


@pytest.mark.parametrize(
    ("attempts", "passed"),
    [
        ([IN_TIME], True),
        ([AT_THE_END, IN_HALVES, IN_TIME], True),
        ([in_parts(4)], True),
        ([AT_THE_END] * 5, False),
        ([IN_HALVES] * 5, False),
        ([stream(1.0)] * 5, False),
        ([in_parts(1, decode_seconds=0.8)] * 5, False),
        ([in_parts(1, starved_seconds=0.39)] * 5, False),
        ([in_parts(1, starved_seconds=0.5)] * 4 + [AT_THE_END], False),
    ],
    ids=[
        *("in time", "a busy host", "in quarters", "buffered", "in halves", "in one piece"),
        *("by metrics", "waited a little", "waited, but not always"),
    ],
)
def test_pieces_have_to_arrive_while_the_answer_is_made(
    attempts: list[Stream], passed: bool
) -> None:
    verdict = serving.judge_stream(GOOD, GOOD, attempts)
    assert verdict.passed is passed
    assert len(verdict.evidence["lateness"]) == len(attempts)
    if not passed:
        assert "pieces arrive while the answer is made: in each of" in verdict.details[0]


@pytest.mark.parametrize(
    "late",
    [in_parts(1, starved_seconds=0.4), in_parts(1, one_token_seconds=1.1)],
    ids=["no CPU", "as short as one token"],
)
def test_a_client_without_cpu_judges_no_stream(late: Stream) -> None:
    with pytest.raises(PreconditionError, match="waited for a CPU"):
        serving.judge_stream(GOOD, GOOD, [late] * 5)


@pytest.mark.parametrize("listed", [("other",), (), REFUSAL])
def test_the_served_name_has_to_be_listed(listed: tuple[str, ...] | Refusal) -> None:
    assert serving.judge_models(("other", "mine"), "mine").passed
    assert not serving.judge_models(listed, "mine").passed


# --- determinism ---------------------------------------------------------------------------------


def test_the_rate_of_equal_answers_is_measured() -> None:
    others = [answer("巴黎"), answer("巴黎"), answer("巴西"), answer("巴黎")]
    verdict = judge_agreement({"a": answer("巴黎")}, {"a": others}, 1.0)
    assert not verdict.passed
    assert verdict.measured == 0.75
    assert verdict.evidence["differing"] == ["a"]
    assert judge_agreement({"a": answer("巴黎")}, {"a": others}, 0.75).passed


def test_the_text_of_each_run_is_in_the_evidence() -> None:
    verdict = judge_repeat(answer("巴黎"), [answer("巴西"), answer("巴黎")], 1.0)
    assert not verdict.passed
    assert verdict.measured == 0.5
    assert verdict.evidence["texts"] == ["巴黎", "巴西", "巴黎"]


def test_a_run_from_the_prefix_cache_repeats_nothing() -> None:
    cached = answer("巴黎", usage=Usage(10, 6, 16, cached_tokens=8))
    for first, again in ((answer("巴黎"), cached), (cached, answer("巴黎"))):
        with pytest.raises(PreconditionError, match="8 prompt tokens came from the prefix cache"):
            judge_repeat(first, [again], 1.0)


def test_equal_text_from_different_tokens_differs() -> None:
    verdict = judge_agreement({"a": GOOD}, {"a": [dataclasses.replace(GOOD, token_ids=(9,))]}, 1.0)
    assert not verdict.passed
    assert "from different tokens" in verdict.details[1]


def test_where_no_token_ids_are_known_texts_are_compared() -> None:
    textual = dataclasses.replace(GOOD, token_ids=None)
    assert judge_agreement({"a": GOOD}, {"a": [textual]}, 1.0).passed
    assert not judge_agreement(
        {"a": GOOD}, {"a": [dataclasses.replace(textual, text="x")]}, 1.0
    ).passed


def seeds(*texts: str, case_id: str = "text/open") -> dict[str, dict[str, Completion]]:
    return {case_id: {f"seed {number}": answer(text) for number, text in enumerate(texts)}}


def test_a_seed_repeats_its_answer_and_another_gives_another() -> None:
    verdict = judge_seeds(seeds("红", "蓝", "绿"), seeds("红", "蓝", "绿"), {}, 1.0)
    assert verdict.passed
    assert verdict.reason == (
        "3 of 3 answers are identical under the same seed; the seeds give 3 different answers"
    )


def test_a_seed_that_does_not_repeat_is_named() -> None:
    verdict = judge_seeds(seeds("红", "蓝", "绿"), seeds("红", "黑", "绿"), {}, 1.0)
    assert not verdict.passed
    assert verdict.evidence["differing"] == ["text/open, seed 1"]
    # Equal first answers do not excuse a difference between the second answers.
    assert not judge_seeds(seeds("红", "红"), seeds("红", "蓝"), {}, 1.0).passed


def test_seeds_that_all_give_one_answer_show_nothing() -> None:
    with pytest.raises(PreconditionError, match="2 seeds give one answer, '红'"):
        judge_seeds(seeds("红", "红"), seeds("红", "红"), {}, 1.0)


def test_a_seed_has_to_show_on_the_image_too() -> None:
    greedy = seeds("红", "红", case_id="image/open")
    sampled = {**seeds("红", "蓝"), **greedy}
    with pytest.raises(PreconditionError, match="image/open: 2 seeds give one answer, '红'"):
        judge_seeds(sampled, sampled, {}, 1.0)


def test_the_answers_to_one_sampled_request_are_not_all_the_same() -> None:
    sampled, one, other = seeds("红", "蓝"), answer("红"), answer("蓝")
    assert judge_seeds(sampled, sampled, {"text/open": [one, other]}, 1.0).passed
    verdict = judge_seeds(sampled, sampled, {"text/open": [one, one]}, 1.0)
    assert not verdict.passed
    assert "one request with n=2 gets '红' in all its answers" in verdict.details[0]
    # serving.limits judges a server that gives one answer.
    assert judge_seeds(sampled, sampled, {"text/open": [one]}, 1.0).passed
    verdict = judge_seeds(sampled, sampled, {"text/open": [one, other, one]}, 1.0)
    assert "one request with n=2 gets 3 answers" in verdict.details[0]


def test_equal_answers_of_a_sure_model_show_nothing() -> None:
    sure = seeds("红", "红", "红", "蓝")
    assert judge_seeds(sure, sure, {"text/open": [answer("红")] * 4}, 1.0).passed


def certain(*margins: float) -> Completion:
    """An answer of N tokens, each ahead of one other token by a margin in nats."""
    lists = np.array([[0.0, -margin] for margin in margins])
    ids = np.tile([1, 2], (len(margins), 1))
    return answer("?", top=TopLogprobs(ids, lists - np.log(np.exp(lists).sum(1))[:, None]))


def test_the_less_sure_an_answer_the_fewer_runs_show_sampling() -> None:
    assert repeat_chance(certain(0.0, 0.0)) == pytest.approx(1 / 4)
    assert repeat_chance(certain(0.7 * math.log(3))) == pytest.approx(3 / 4)
    assert runs_to_see_sampling(least_certain([certain(9.0), certain(*[0.0] * 10)])) == 1
    assert runs_to_see_sampling(least_certain([certain(*[0.0] * 5)])) == 2
    with pytest.raises(PreconditionError, match="the model is sure of its answers"):
        runs_to_see_sampling(least_certain([certain(9.0), certain(0.0)]))
    with pytest.raises(PreconditionError, match="listed no log-probabilities"):
        runs_to_see_sampling(least_certain([GOOD]))


def test_answers_are_told_apart_by_their_tokens() -> None:
    assert distinct([GOOD, dataclasses.replace(GOOD, token_ids=(9,)), GOOD]) == 2
    assert distinct([dataclasses.replace(GOOD, token_ids=None), answer("x", token_ids=None)]) == 2


def cached(text: str, tokens: int | None) -> Completion:
    return answer(text, usage=Usage(160, 3, 163, tokens))


@pytest.mark.parametrize(
    ("hit", "other_warm", "problem"),
    [
        (cached("一", 128), cached("二", None), None),
        (cached("一", 128), cached("二", 16), None),
        (cached("x", 128), cached("二", 16), "after a hit differs from the cold answer"),
        (cached("一", 128), cached("一", 16), "the other image's answer differs"),
        (cached("一", 128), cached("二", 128), "the cache key ignores the image"),
    ],
)
def test_the_cache_is_exact_only_if_nothing_is_mixed_up(
    hit: Completion, other_warm: Completion, problem: str | None
) -> None:
    verdict = judge_prefix_cache(cached("一", None), hit, cached("二", None), other_warm)
    assert verdict.passed == (problem is None)
    assert problem is None or any(problem in line for line in verdict.details)


@pytest.mark.parametrize(("cold", "other_cold"), [(128, None), (None, 16)])
def test_a_cold_answer_from_the_cache_is_no_evidence(
    cold: int | None, other_cold: int | None
) -> None:
    with pytest.raises(PreconditionError, match="ignores cache_salt"):
        judge_prefix_cache(
            cached("一", cold), cached("一", 128), cached("二", other_cold), cached("二", 16)
        )
