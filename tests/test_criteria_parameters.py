"""Rules of request parameters, on answers that are made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest

from pytest_ascend_vlm import Capability, Case
from pytest_ascend_vlm.criteria import parameters as rules
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Completion, Refusal, TopLogprobs
from pytest_ascend_vlm.observation.parameters import Trial, Trials, UnsuitedError
from pytest_ascend_vlm.session.parameters import ParameterRuns

CASE = "text/a"
END = 2
IDS = (10, 11, 12, 13, 11, END)


def answer(ids: Sequence[int], finish: str = "stop", text: str | None = None) -> Completion:
    """An answer; by default each token but the end has its own letter."""
    letters = "".join(chr(ord("a") + one) for one in ids if one != END)
    text = letters if text is None else text
    return Completion(CASE, text, tuple(ids), finish, None, None, 0.1)


def listing(ids: Sequence[int], *lists: Mapping[int, float]) -> Completion:
    """An answer with the listed tokens of each position."""
    found = TopLogprobs(
        np.array([[*of] for of in lists], dtype=np.int64),
        np.array([[*of.values()] for of in lists], dtype=np.float64),
    )
    return dataclasses.replace(answer(ids, "length"), top=found, prompt_token_ids=())


PLAIN = answer(IDS)
OTHER = answer((20, 21, 22, END))
REPEATING = listing(
    (10, 11, 10, 10),
    {10: 9.0, 20: 8.5, 30: -5.0},
    {11: 9.0, 20: 1.0, 30: -5.0},
    {10: 9.0, 21: 8.0, 30: -5.0},
    {10: 9.0, 22: 4.0, 30: -5.0},
)


def problem(parameter: rules.Parameter, plain: Completion, got: Completion) -> str | None:
    return parameter.problem(plain, got)


@pytest.mark.parametrize(
    ("name", "fields", "good", "bad"),
    [
        (
            "min_tokens",
            {"min_tokens": 14, "max_tokens": 22},
            answer((*IDS[:-1], *range(30, 39)), "length"),
            PLAIN,
        ),
        (
            "min_tokens",
            {"min_tokens": 14, "max_tokens": 22},
            answer((*IDS[:-1], *range(30, 47)), "length"),
            answer((10, 12, *range(30, 45)), "length"),
        ),
        (
            "ignore_eos",
            {"ignore_eos": True, "max_tokens": 14},
            answer((*IDS, *range(30, 38)), "length"),
            answer((*IDS, *range(30, 34)), "length"),
        ),
        (
            "max_completion_tokens",
            {"max_tokens": None, "max_completion_tokens": 3},
            answer(IDS[:3], "length"),
            PLAIN,
        ),
        ("stop", {"stop": "m"}, answer(IDS[:3], text="kl"), answer(IDS[:3])),
        ("stop", {"stop": "m"}, answer(IDS[:3], text="kl"), PLAIN),
        ("stop-list", {"stop": ["☃☂", "mnl"]}, answer(IDS[:5], text="kl"), PLAIN),
        (
            "stop-list",
            {"stop": ["☃☂", "mnl"]},
            answer(IDS[:5], text="kl"),
            answer(IDS[:5], text="klm"),
        ),
        (
            "skip_special_tokens",
            {"skip_special_tokens": False, "include_stop_str_in_output": True},
            answer(IDS, text="klmnl<|end|>"),
            PLAIN,
        ),
        (
            "skip_special_tokens",
            {"skip_special_tokens": False, "include_stop_str_in_output": True},
            answer(IDS, text="klmnl<|end|>"),
            answer((20, END), text="u<|end|>"),
        ),
        ("no_max_tokens", {"max_tokens": None}, PLAIN, answer(IDS[:4], "length")),
        ("stop_token_ids", {"stop_token_ids": [12]}, answer(IDS[:3]), PLAIN),
        ("stop_token_ids", {"stop_token_ids": [12]}, answer(IDS[:2]), answer(IDS[:3], "length")),
        (
            "include_stop_str_in_output",
            {"stop": "m", "include_stop_str_in_output": True},
            answer(IDS[:3]),
            answer(IDS[:3], text="kl"),
        ),
    ],
)
def test_an_end_is_moved(
    name: str, fields: Mapping[str, Any], good: Completion, bad: Completion
) -> None:
    parameter = rules.ENDS[name]
    assert parameter.fields(PLAIN) == fields
    assert problem(parameter, PLAIN, good) is None
    assert problem(parameter, PLAIN, bad)


def test_a_default_of_max_tokens_shows_on_a_long_answer_only() -> None:
    default, other = rules.ENDS["no_max_tokens"], rules.ENDS["stop"]
    long = answer((*range(10, 26), END))
    assert [rules.is_suited(default, one) for one in (PLAIN, long)] == [False, True]
    assert [rules.is_suited(other, one) for one in (PLAIN, long)] == [True, True]
    assert not rules.is_suited(other, dataclasses.replace(long, finish_reason="length"))


# Three tokens are likely, one is not.
SPREAD = {1: np.log(0.48), 2: np.log(0.3), 3: np.log(0.2), 4: np.log(0.02)}


@pytest.mark.parametrize(
    ("name", "left", "excluded"),
    [("top_k", (1, 2), (3, 4, 5)), ("top_p", (1, 2), (3, 4, 5)), ("min_p", (1, 2, 3), (4, 5))],
)
def test_a_limit_of_sampling_excludes_tokens(
    name: str, left: Sequence[int], excluded: Sequence[int]
) -> None:
    limit = rules.SAMPLED[name]
    for token in left:
        one = listing((token,), SPREAD)
        assert not limit.acts_on(one)
        assert problem(limit.parameter, one, one) is None
    for token in excluded:
        one = listing((1, token), SPREAD, SPREAD)
        assert limit.acts_on(one)
        assert (problem(limit.parameter, one, one) or "").startswith(
            f"token 2 of the answer, id {token}"
        )


@pytest.mark.parametrize("name", rules.SAMPLED)
def test_a_limit_between_equal_tokens_may_leave_either(name: str) -> None:
    equal = dict.fromkeys((1, 2, 3), np.log(1 / 3))
    one = listing((3,), equal)
    assert problem(rules.SAMPLED[name].parameter, one, one) is None


def test_a_limit_is_tried_where_it_acts() -> None:
    sampled = {1: listing((1,), SPREAD), 2: listing((4,), SPREAD)}
    sent: list[Mapping[str, Any]] = []

    def ask_all_with(_: Case, fields: Mapping[str, Any]) -> tuple[Completion]:
        sent.append(fields)
        return (sampled[1],)

    client = mock.Mock(
        ask_with=lambda _, fields: sampled[fields["seed"]], ask_all_with=ask_all_with
    )
    limit, case = rules.SAMPLED["top_k"], Case(CASE, Capability.TEXT, "a")
    trials = ParameterRuns(client, may_lack=False).sampled_trials(limit, [case])
    assert sent == [{"temperature": 1.0, "seed": 2, "top_k": 2}]
    assert rules.judge_parameter(limit.parameter, trials).passed
    sampled.update(dict.fromkeys(range(1, 9), sampled[1]))
    none = ParameterRuns(client, may_lack=False).sampled_trials(limit, [case])
    with pytest.raises(UnsuitedError, match="8 samples at temperature 1 have no token"):
        rules.judge_parameter(limit.parameter, none)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("logit_bias-against", (20, 1, 1, 1), (10, 11, 10, 10)),
        ("logit_bias-against", (20, 1, 1, 1), (11, 11, 10, 10)),
        ("logit_bias-for", (11, 11, 11), (11, 11, 10)),
        # The third token is the first that occurred before; 9 - 2 is less than 8.
        ("presence_penalty", (10, 11, 21, 1), (10, 11, 10, 10)),
        ("presence_penalty", (10, 11, 21, 1), (10, 20, 10, 10)),
        ("frequency_penalty", (10, 11, 21, 1), (10, 11, 10, 22)),
        ("repetition_penalty", (10, 11, 21, 1), (10, 11, 10, 10)),
    ],
)
def test_a_choice_is_predicted(name: str, good: Sequence[int], bad: Sequence[int]) -> None:
    parameter = rules.CHOICES[name]
    assert problem(parameter, REPEATING, answer(good, "length")) is None
    assert problem(parameter, REPEATING, answer(bad, "length"))


def test_a_penalty_counts_how_often_a_token_occurred() -> None:
    """The fourth token occurred three times: 9 - 6 is less than 4, and 9 - 2 is not."""
    clear = {10: 9.0, 20: 1.0, 30: -5.0}
    plain = listing((10, 10, 10, 10), clear, clear, clear, {10: 9.0, 22: 4.0, 30: -5.0})
    parameter = rules.CHOICES["frequency_penalty"]
    assert problem(parameter, plain, answer((10, 10, 10, 22), "length")) is None
    assert problem(parameter, plain, answer((10, 10, 10, 10), "length"))
    with pytest.raises(UnsuitedError, match="changes no token of the answer"):
        problem(rules.CHOICES["presence_penalty"], plain, answer((10, 10, 10, 10), "length"))


def test_a_repetition_penalty_counts_the_prompt() -> None:
    plain = dataclasses.replace(REPEATING, prompt_token_ids=(10,))
    parameter = rules.CHOICES["repetition_penalty"]
    assert problem(parameter, plain, answer((20, 1, 1, 1), "length")) is None
    assert problem(parameter, plain, answer((10, 11, 21, 1), "length"))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("choice", ("red", "stop"), ("a red one", "stop")),
        ("choice", ("re", "length"), ("re", "stop")),
        ("choice", ("", "length"), ("", "stop")),
        ("regex", ("1958", "stop"), ("195", "stop")),
        ("regex", ("195", "length"), ("a", "length")),
        ("json_schema", ('{ "answer" :"no"\n}', "stop"), ('{"answer": "maybe"}', "stop")),
        ("json_schema", ('{\n\n "ans', "length"), ('{\n\n "ans', "stop")),
        ("json_object", ('{"a": [1]}', "stop"), ("[1]", "stop")),
        ("json_object", ("{\n\n", "length"), ("Here is", "length")),
        ("json_object", ("{}", "stop"), ("{", "stop")),
    ],
)
def test_a_form_is_recognised(name: str, good: tuple[str, str], bad: tuple[str, str]) -> None:
    parameter = rules.FORMS[name]
    assert problem(parameter, PLAIN, answer((1,), good[1], good[0])) is None
    assert problem(parameter, PLAIN, answer((1,), bad[1], bad[0]))


def tried(unstreamed: Completion | Sequence[Completion] | Refusal, *streamed: Completion) -> Trials:
    answers = (unstreamed,) if isinstance(unstreamed, Completion) else unstreamed
    trial = Trial({"top_k": 1}, PLAIN, answers, streamed)
    return Trials((trial,), {"image/b": "not suited"}, may_lack=True)


def test_a_streamed_answer_is_the_same() -> None:
    parameter = rules.LIMITS["top_k"]
    verdict = rules.judge_parameter(parameter, tried(PLAIN, PLAIN))
    assert verdict.passed
    assert verdict.evidence["unsuited"] == {"image/b": "not suited"}
    verdict = rules.judge_parameter(parameter, tried(PLAIN, answer(IDS[:3])))
    assert not verdict.passed
    assert f"{CASE}, streamed" in verdict.reason


@pytest.mark.parametrize(
    ("unstreamed", "streamed", "wrong"),
    [
        ((PLAIN, PLAIN), (PLAIN, PLAIN), None),
        ((PLAIN,), (PLAIN,), f"{CASE}: the number of answers is 1, the request asks for 2"),
        ((PLAIN, PLAIN), (PLAIN,), f"{CASE}, streamed: the number of answers is 1, unstreamed 2"),
        ((PLAIN, OTHER), (PLAIN, OTHER), f"{CASE}: the answer begins otherwise"),
        ((PLAIN, PLAIN), (PLAIN, answer(IDS[:3])), f"{CASE}, streamed: "),
    ],
)
def test_each_of_several_answers_is_judged(
    unstreamed: Sequence[Completion], streamed: Sequence[Completion], wrong: str | None
) -> None:
    verdict = rules.judge_parameter(rules.GREEDY["n"], tried(unstreamed, *streamed))
    assert verdict.passed is (wrong is None)
    assert (wrong or "") in "".join(verdict.details)


def test_a_parameter_that_no_case_can_show_has_no_verdict() -> None:
    with pytest.raises(UnsuitedError, match="not suited"):
        rules.judge_parameter(
            rules.LIMITS["top_k"], Trials((), {"image/b": "not suited"}, may_lack=True)
        )
    nothing = dataclasses.replace(PLAIN, token_ids=None)
    with pytest.raises(PreconditionError, match="no token ids"):
        rules.judge_parameter(rules.LIMITS["top_k"], tried(nothing, nothing))


@pytest.mark.parametrize(
    ("status", "is_refused"), [(400, True), (422, True), (429, False), (500, False)]
)
def test_only_some_4xx_say_that_a_parameter_does_not_exist(status: int, is_refused: bool) -> None:
    refusal = Refusal(status, "no such field", is_json_error=True)
    trials = tried(refusal)
    assert rules.refusal_of_all(trials) == (refusal if is_refused else None)
    assert not rules.judge_parameter(rules.LIMITS["top_k"], trials).passed
    assert rules.refusal_of_all(tried(PLAIN, PLAIN)) is None
    assert rules.refusal_of_all(dataclasses.replace(trials, may_lack=False)) is None


# --- near-ties, and what a reply lacks ------------------------------------------------------------


def tied(gap: float) -> Completion:
    """A plain answer whose second token is hardly likelier than token 20."""
    lists = [{one: -0.1, 99: -5.0} for one in IDS]
    lists[1] = {IDS[1]: -0.7, 20: -0.7 - gap}
    return dataclasses.replace(listing(IDS, *lists), finish_reason="stop")


@pytest.mark.parametrize(("gap", "is_right"), [(0.0, True), (0.2, True), (1.0, False)])
def test_sampling_may_choose_either_of_two_equal_tokens(gap: float, is_right: bool) -> None:
    got = answer((10, 20, 21, END))
    assert (problem(rules.LIMITS["top_k"], tied(gap), got) is None) is is_right


def test_an_end_is_not_judged_behind_a_tie() -> None:
    got = answer((10, 20, *range(30, 50)), "length")
    with pytest.raises(UnsuitedError, match="at token 2 of the answer two candidates"):
        problem(rules.ENDS["min_tokens"], tied(0.0), got)


def test_a_change_that_the_parameter_does_not_make_shows_nothing() -> None:
    """The first token changes by itself, before a penalty can act."""
    got = answer((20, 11, 20, 20), "length")
    with pytest.raises(UnsuitedError, match="changes no token"):
        problem(rules.CHOICES["presence_penalty"], REPEATING, got)


@pytest.mark.parametrize(("last", "is_right"), [(23, True), (21, False)])
def test_later_tokens_are_judged_by_the_answers_own_lists(last: int, is_right: bool) -> None:
    """At the fourth token, 21 has occurred before, so that 9 - 2 is less than 8."""
    got = listing(
        (10, 11, 21, last),
        {10: 9.0, 20: 8.5, 30: -5.0},
        {11: 9.0, 20: 1.0, 30: -5.0},
        {10: 9.0, 21: 8.0, 30: -5.0},
        {21: 9.0, 23: 8.0, 30: -5.0},
    )
    found = problem(rules.CHOICES["presence_penalty"], REPEATING, got)
    assert (found is None) is is_right


def test_lists_of_changed_logits_do_not_judge_later_tokens() -> None:
    got = listing(
        (10, 11, 21, 21),
        {10: 9.0, 20: 8.5, 30: -5.0},
        {11: 9.0, 20: 1.0, 30: -5.0},
        {10: 7.0, 21: 8.0, 30: -5.0},
        {21: 9.0, 23: 8.0, 30: -5.0},
    )
    assert problem(rules.CHOICES["presence_penalty"], REPEATING, got) is None


@pytest.mark.parametrize("name", ["presence_penalty", "repetition_penalty"])
def test_a_reply_without_lists_or_prompt_is_an_error_of_the_set_up(name: str) -> None:
    with pytest.raises(
        PreconditionError, match=r"lists no log-probabilities|no tokens of the prompt"
    ):
        problem(rules.CHOICES[name], answer(IDS, "length"), answer(IDS[:3], "length"))


def test_an_answer_without_tokens_is_not_taken_for_a_sure_one() -> None:
    """Otherwise a proxy that drops them would make the limits of sampling not applicable."""
    nothing = dataclasses.replace(PLAIN, token_ids=None)
    client = mock.Mock(ask_with=lambda case, fields: nothing)  # noqa: ARG005
    case = Case(CASE, Capability.TEXT, "a")
    with pytest.raises(PreconditionError, match="no token ids"):
        ParameterRuns(client, may_lack=False).sampling(case)
    client = mock.Mock(ask_with=lambda case, fields: PLAIN)  # noqa: ARG005
    with pytest.raises(UnsuitedError, match="have no token that would change"):
        ParameterRuns(client, may_lack=False).sampling(case)
