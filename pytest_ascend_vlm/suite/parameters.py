"""Criteria parameters.*: request parameters do what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from ..criteria import parameters as rules
from ..errors import PreconditionError
from ..session.answers import Answers
from ..session.judge import Judge
from ..session.parameters import ParameterRuns
from ..spec.case import Case
from .base import Criteria
from .criterion import criterion
from .determinism import OPEN

if TYPE_CHECKING:
    from ..observation.parameters import Trials


class ParameterCriteria(Criteria):
    """Criteria of request parameters, on a text and on an image, unstreamed and streamed."""

    @criterion("parameters.greedy")
    @pytest.mark.parametrize("parameter", [*rules.GREEDY, *rules.LIMITS])
    def test_parameters_keep_greedy(
        self,
        parameter: str,
        all_cases: tuple[Case, ...],
        parameter_runs: ParameterRuns,
        judge: Judge,
    ) -> None:
        """Parameters that leave only the likeliest token give the greedy answer.

        Applications seldom send temperature 0. Row `temperature` sends temperature 0.01 with top_p
        0.001, as adaptation documents do; row `no_logprobs` requests no log-probabilities. Rows
        `top_p` (0.000001), `top_k` (1) and `min_p` (1) are sent with a temperature at which the
        sampled answer differs from the greedy one, so a dropped parameter shows.

        If this fails: the parameter does not reach the sampler: look for a proxy that drops it, and
        for a sampler of the platform that does not have it. Only streamed: compare how the server
        builds both kinds of requests.
        """
        cases = _with_open_prompt(_text_and_image(all_cases))
        plain = {case.id: parameter_runs.plain(case, {}) for case in cases}
        if parameter in rules.GREEDY:
            rule = rules.GREEDY[parameter]
            _judge(rule, parameter_runs.tried(rule, plain, cases), judge)
        else:
            rule = rules.LIMITS[parameter]
            _judge(rule, parameter_runs.tried(rule, plain, cases, parameter_runs.hot), judge)

    @criterion("parameters.end")
    @pytest.mark.parametrize("parameter", rules.ENDS)
    def test_parameters_move_the_end(
        self,
        parameter: str,
        all_cases: tuple[Case, ...],
        answers: Answers,
        parameter_runs: ParameterRuns,
        judge: Judge,
    ) -> None:
        """Parameters of an answer's end move the end, and change nothing before it.

        Rows: `min_tokens` and `ignore_eos` make the answer longer, `max_completion_tokens` cuts it,
        `stop_token_ids` ends it at a token, `include_stop_str_in_output` keeps the stop string.
        serving.limits judges max_tokens, stop and n.

        If this fails: an answer without the effect: a proxy or a gateway drops the field. Another
        beginning: the parameter changes more than the end of the answer; look at the sampler.
        """
        cases = _text_and_image(case for case in all_cases if rules.is_suited(answers(case)))
        if not cases:
            raise PreconditionError(
                "no answer ends by itself after some tokens, so no end can be moved."
            )
        plain = {case.id: answers(case) for case in cases}
        rule = rules.ENDS[parameter]
        _judge(rule, parameter_runs.tried(rule, plain, cases), judge)

    @criterion("parameters.choice")
    @pytest.mark.parametrize("parameter", rules.CHOICES)
    def test_parameters_choose_tokens(
        self,
        parameter: str,
        all_cases: tuple[Case, ...],
        parameter_runs: ParameterRuns,
        judge: Judge,
    ) -> None:
        """A bias and the three penalties choose the token that they make the likeliest.

        It is predicted from the tokens that are listed with the plain answer: the first token that
        the parameter changes is the likeliest after the change. The answers go on behind their end,
        so that tokens occur again. Penalties: repetition 1000, presence 2, frequency 2; bias: 100
        for a token, -100 against the first one.

        If this fails: the same answer as without the parameter: it does not reach the sampler.
        Another token: look at the sampler of the platform, at what counts as prompt (images
        included), and at penalties under asynchronous scheduling, which may miss the last token.
        """
        cases = _with_open_prompt(_text_and_image(all_cases))
        plain = {case.id: parameter_runs.plain(case, rules.LONG) for case in cases}
        rule = rules.CHOICES[parameter]
        _judge(rule, parameter_runs.tried(rule, plain, cases), judge)

    @criterion("parameters.form")
    @pytest.mark.parametrize("parameter", rules.FORMS)
    def test_parameters_keep_a_form(
        self,
        parameter: str,
        all_cases: tuple[Case, ...],
        parameter_runs: ParameterRuns,
        judge: Judge,
    ) -> None:
        """Structured outputs have the form that the request asks for.

        Rows: one of two words (`choice`), four digits (`regex`), an object of a schema
        (`json_schema`), any object (`json_object`). An answer that max_tokens cuts is judged up to
        there. No right answer is needed: the engine allows only tokens that keep the form.

        If this fails: look at the backend of structured outputs (xgrammar) and at its bit masks on
        the platform. Without any effect, a proxy drops the field.
        """
        cases = _with_open_prompt(_text_and_image(all_cases))
        plain = {case.id: parameter_runs.plain(case, {}) for case in cases}
        rule = rules.FORMS[parameter]
        _judge(rule, parameter_runs.tried(rule, plain, cases), judge)


def _judge(rule: rules.Parameter, trials: Trials, judge: Judge) -> None:
    if refusal := rules.refusal_of_all(trials):
        judge.not_applicable(f"the server refuses the parameter: {refusal}")
    judge(rules.judge_parameter(rule, trials))


def _text_and_image(cases: Iterable[Case]) -> tuple[Case, ...]:
    """The first case without an image and the first with one, as far as there are any."""
    first: dict[bool, Case] = {}
    for case in cases:
        first.setdefault(bool(case.every_image), case)
    return tuple(first.values())


def _with_open_prompt(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    return tuple(
        dataclasses.replace(OPEN, id=f"{case.group}/open", needs=case.needs, images=case.images)
        for case in cases
    )
