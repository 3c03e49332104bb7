"""Criteria parameters.*: request parameters do what they say."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

import pytest

from ..criteria import company, tools
from ..criteria import parameters as rules
from ..criteria.determinism import with_running
from ..observation.answers import Completion
from ..observation.parameters import Trials, UnsuitedError
from ..session.answers import Answers
from ..session.company import Company, Wish
from ..session.device_slot import DeviceSlot
from ..session.judge import Judge
from ..session.parameters import Fields, ParameterRuns
from ..spec.case import Case
from ..spec.model import ExpectedFailure
from .base import Criteria
from .criterion import criterion
from .open_prompt import open_cases, text_and_image

_BIT_MASKS = ExpectedFailure(
    criterion="parameters.form",
    reason="the engine ends when vLLM before 0.15 masks bf16 logits on a CPU, and vllm-ascend 0.13 "
    "has a defect of the same kind (vllm-ascend#6820)",
    issue="https://github.com/vllm-project/vllm/pull/32384",
    shows="HTTP 500",
    fixed_in="0.18",
)
_LOST_BRACE = ExpectedFailure(
    criterion="parameters.tools[required]",
    reason="vLLM before 0.32 loses the first brace of streamed arguments if white space is between "
    '"parameters" and its colon',
    issue="not tracked upstream yet",
    shows="streamed: the answer calls",
    fixed_in="0.32",
)


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
        0.001, as adaptation documents do, and row `n` the same with a request for two answers; row
        `no_logprobs` requests no log-probabilities. Rows `top_p` (0.000001), `top_k` (1) and
        `min_p` (1), and `temperature-alone` (0.01), are sent with a seed whose sampled answer at
        temperature 2 differs from the greedy one, so that a dropped parameter shows. Where two
        tokens are equally likely, either is right.

        If this fails: the parameter does not reach the sampler: look for a proxy that drops it, and
        for a sampler of the platform that does not have it. Only streamed: compare how the server
        builds both kinds of requests. Another number of answers: look for a proxy that drops `n`,
        or that joins the pieces of a stream without regard to their index.
        """
        plain = _plain(all_cases, {}, parameter_runs)
        if parameter in rules.GREEDY:
            rule = rules.GREEDY[parameter]
            _judge(rule, parameter_runs.trials(rule, plain), judge)
        else:
            rule = rules.LIMITS[parameter]
            _judge(rule, parameter_runs.trials(rule, plain, parameter_runs.sampling), judge)

    @criterion("parameters.sampled")
    @pytest.mark.parametrize("parameter", rules.SAMPLED)
    def test_parameters_limit_sampling(
        self,
        parameter: str,
        all_cases: tuple[Case, ...],
        parameter_runs: ParameterRuns,
        judge: Judge,
    ) -> None:
        """A sampled answer has no token that the request's limit excludes.

        Rows: `top_k` (2), `top_p` (0.5), `min_p` (0.1), at temperature 1. The limit is compared
        with the log-probabilities that are listed at each token. The seed is one whose answer
        without the limit has an excluded token, so that a dropped limit shows. Applications sample
        with such values; a limit of 1 token, which parameters.greedy sends, may take another path.

        If this fails: the limit does not reach the sampler, or the sampler takes it wrongly: look
        at its kernels for top_k and top_p on the platform, at the order of temperature and limits,
        and at a proxy that changes the fields.
        """
        limit = rules.SAMPLED[parameter]
        trials = parameter_runs.sampled_trials(limit, open_cases(all_cases))
        _judge(limit.parameter, trials, judge)

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
        """Parameters that decide where an answer ends change nothing before the end.

        Rows: `min_tokens` and `ignore_eos` make the answer longer, `max_completion_tokens` cuts it,
        `stop` ends it before a character, `stop-list` before the second of two strings, of three
        characters; `include_stop_str_in_output` ends it behind the string, `stop_token_ids` at a
        token. `no_max_tokens` leaves max_tokens out: the answer ends by itself. With
        `skip_special_tokens` false, the text of the end token is behind the answer; MinerU's
        clients read tables by such tokens. serving.limits judges max_tokens and, on one text, n and
        `stop`.

        If this fails: an answer without the effect: a proxy or a gateway drops the field, or the
        engine ignores it (min_tokens with speculative decoding). Another beginning: the parameter
        changes more than the end of the answer; look at the sampler. Only streamed, and a part of
        a stop string is there: the server sends text before it knows whether the string goes on.
        Cut without max_tokens: the server or a proxy has a default, which users do not expect.
        """
        rule = rules.ENDS[parameter]

        def is_suited(case: Case) -> bool:
            answer = answers.ask(case)
            return isinstance(answer, Completion) and rules.is_suited(rule, answer)

        plain = {case: answers(case) for case in text_and_image(all_cases, is_suited)}
        if not plain:
            judge.not_applicable("no answer ends by itself after some tokens")
        _judge(rule, parameter_runs.trials(rule, plain), judge)

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

        It is predicted from the log-probabilities that are listed with the answer without the
        parameter and, where they are those before a penalty, with the answer itself. The answers
        continue after their end token, so that tokens occur again. Penalties: repetition 1000,
        presence 2, frequency 2; bias: 100 for a token, -100 against the first one.

        If this fails: the same answer as without the parameter: it does not reach the sampler.
        Another token: look at the sampler of the platform, at what counts as prompt (images
        included), and at penalties under asynchronous scheduling, which may miss the last token.
        """
        plain = _plain(all_cases, rules.LONG, parameter_runs)
        rule = rules.CHOICES[parameter]
        _judge(rule, parameter_runs.trials(rule, plain), judge)

    @criterion("parameters.form", known_failures=(_BIT_MASKS,))
    @pytest.mark.parametrize("parameter", rules.FORMS)
    def test_parameters_keep_a_form(
        self,
        parameter: str,
        all_cases: tuple[Case, ...],
        parameter_runs: ParameterRuns,
        device_slot: DeviceSlot,
        judge: Judge,
    ) -> None:
        """Structured outputs have the form that the request asks for.

        Rows: one of two words (`choice`), four digits (`regex`), an object of a schema
        (`json_schema`), any object (`json_object`). An answer that max_tokens cuts is judged up to
        there. No right answer is needed: the engine allows only tokens that keep the form.

        If this fails: look at the backend of structured outputs (xgrammar) and at its bit masks on
        the platform. Without any effect, a proxy drops the field.
        """
        if problem := device_slot.session.run.platform.structured_outputs_problem:
            judge.cannot_run(problem)
        plain = _plain(all_cases, {}, parameter_runs)
        rule = rules.FORMS[parameter]
        _judge(rule, parameter_runs.trials(rule, plain), judge)

    @criterion(
        "parameters.tools",
        known_failures=(
            dataclasses.replace(_BIT_MASKS, criterion="parameters.tools"),
            _LOST_BRACE,
        ),
    )
    @pytest.mark.parametrize("choice", tools.TOOLS)
    def test_parameters_call_functions(
        self,
        choice: str,
        all_cases: tuple[Case, ...],
        parameter_runs: ParameterRuns,
        device_slot: DeviceSlot,
        judge: Judge,
    ) -> None:
        """A request with `tools` gets the call of a function that its `tool_choice` asks for.

        Rows are the values of tool_choice: the name of the second of two functions (`named`),
        `required`, `none` and `auto`. The engine allows only tokens of a call for the first two,
        so no trained model is needed; the arguments have to follow the function's schema. The
        pieces of a streamed call make up the same call. `none` gives a text: the same as without
        tools, if the prompt is the same. For `auto` a text or a call is right. It is not
        applicable if `serve` of the model file has no tool_call_parser.

        If this fails: no call: a proxy drops the fields, or the server was started without
        --tool-call-parser. Wrong arguments: look at the backend of structured outputs, as for
        parameters.form. Only streamed: look at the parser that --tool-call-parser names.
        """
        if "tool_call_parser" not in self.model.serve:
            judge.not_applicable("the model file declares no tool_call_parser in serve")
        if problem := device_slot.session.run.platform.structured_outputs_problem:
            judge.cannot_run(problem)
        plain = _plain(all_cases, {}, parameter_runs)
        rule = tools.TOOLS[choice]
        trials = parameter_runs.trials(rule, plain)
        # The model file declares the parser, so that only a refused penalty is no failure.
        refusal = rules.refusal_of_all(trials)
        if refusal is not None and "penalty" in refusal.message:
            judge.not_applicable(f"the server does not have the parameter: {refusal}")
        judge(rules.judge_parameter(rule, trials))

    @criterion(
        "parameters.together",
        known_failures=(dataclasses.replace(_BIT_MASKS, criterion="parameters.together[form]"),),
    )
    @pytest.mark.parametrize("crowd", company.COMPANIES)
    def test_parameters_stay_with_their_request(
        self,
        crowd: str,
        all_cases: tuple[Case, ...],
        parameter_runs: ParameterRuns,
        device_slot: DeviceSlot,
        judge: Judge,
    ) -> None:
        """The parameters of one request change no other request that runs at the same time.

        Users of one server send different parameters, and the engine samples all their requests in
        one batch. Greedy requests, texts and images, are sent at one moment with others that have
        parameters. Row `sampling`: top_k at a high temperature, a bias, a penalty, min_tokens,
        ignore_eos and a stop string. Row `form`: structured outputs. Each greedy request gets its
        lone answer, and each other one that or an answer with the effect of its parameters.
        Where two tokens are about equally likely, either is right. Parameters that the server
        refuses, or that have no effect alone, are left out. The message has the most requests that
        `/metrics` showed as running meanwhile.

        If this fails: a wrong greedy answer: look at the tensors of the batch in the sampler
        (biases, penalties, bit masks), at their order after a request has ended, and at a graph
        that keeps those of an earlier step. To confirm, serve with max_num_seqs=1. A refused
        request: look at the code for a batch in which only some requests have a parameter.
        """
        most = self.model.serve.get("max_num_seqs")
        if most == 1:
            judge.not_applicable(f"the model is served with max_num_seqs={most}")
        problem = device_slot.session.run.platform.structured_crowd_problem
        if crowd == "form" and problem:
            judge.cannot_run(problem)
        prompts, taught = open_cases(all_cases), text_and_image(all_cases, lambda _: True)
        greedy = itertools.product(company.GREEDY, prompts)
        short = itertools.product(list(company.GREEDY)[:1], taught)
        members, requests = company.COMPANIES[crowd], Company(parameter_runs)
        others = zip(members, itertools.cycle(prompts), strict=False)
        try:
            neighbours, running = requests.ask(
                _wishes(company.GREEDY, itertools.chain(greedy, short)), _wishes(members, others)
            )
        except UnsuitedError as error:
            judge.not_applicable(f"no request can show whether parameters reach others: {error}")
        verdict = company.judge_together(neighbours, requests.left_out)
        judge(with_running(verdict, running))


def _wishes(members: Mapping[str, company.Member], asked: Iterable[tuple[str, Case]]) -> list[Wish]:
    return [Wish(f"{name}, {case.id}", case, members[name]) for name, case in asked]


def _judge(rule: rules.Parameter, trials: Trials, judge: Judge) -> None:
    if refusal := rules.refusal_of_all(trials):
        judge.not_applicable(f"the server does not have the parameter: {refusal}")
    try:
        verdict = rules.judge_parameter(rule, trials)
    except UnsuitedError as error:
        judge.not_applicable(f"no answer can show what the parameter does: {error}")
    judge(verdict)


def _plain(
    cases: Iterable[Case], fields: Fields, parameter_runs: ParameterRuns
) -> dict[Case, Completion]:
    """The answers to an open prompt, as a text and with an image."""
    return {case: parameter_runs.answer(case, fields) for case in open_cases(cases)}
