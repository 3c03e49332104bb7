"""Rules of parameters.*: what a request parameter does to a greedy answer.

Each rule predicts it from the plain answer, which is the answer without the parameter: from its
tokens, and from the likeliest tokens that are listed at each of them. So no right answer is needed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PreconditionError
from ..observation.answers import Completion, Refusal
from ..observation.parameters import Trials, UnsuitedError
from .divergence import first_difference, token_at
from .near_ties import are_close
from .text import side_by_side
from .verdict import Verdict, checklist

Fields = Mapping[str, Any]
Problem = Callable[[Completion, Completion], str | None]
Adjust = Callable[[int, float, tuple[int, ...]], float]

LONG: Fields = {"ignore_eos": True, "max_tokens": 96}
"""The fields of an answer that continues after its end token, so that tokens occur again."""

_TOP_P, _MIN_P = 0.5, 0.1
_ROUNDED_SHARE = 0.05
_SHOWN = 3  # of the likeliest tokens
_EXTRA_TOKENS = 8
_CUT_TOKENS = 3
_FEW_TOKENS = 8
_DEFAULT_TOKENS = 16  # OpenAI's older API cuts an answer there if a request has no max_tokens
_ABSENT = "\N{SNOWMAN}\N{UMBRELLA}"
_BIAS_FOR, _BIAS_AGAINST = 100, -100
# Of log-probabilities: a logit from 32 to 64 has steps of 0.25 in bf16.
_TIE = 0.25
_ROUNDING = 0.5
_REPETITION_PENALTY, _PENALTY = 1000.0, 2.0
_COLOURS = ("red", "blue")
_DIGITS = 4
_WORDS = ("yes", "no")
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": list(_WORDS)}},
    "required": ["answer"],
    "additionalProperties": False,
}
# Other 4xx (rate limit, key, size), and a context that is too short, say nothing about a parameter.
_UNKNOWN_PARAMETER = frozenset({400, 422})


@dataclass(frozen=True)
class Parameter:
    """A request parameter and its effect.

    Attributes:
        fields: makes the request's fields from the plain answer.
        problem: takes the plain answer and one with the parameter; returns what is wrong, or None.
        answers: the number of answers that the request asks for.
        is_streamed: True if a streamed answer has to be the same. A sampled one may not be: the
            least rounding can change it.
        least_tokens: a shorter plain answer cannot show the effect.

    `fields` and `problem` raise UnsuitedError if the plain answer does not let the parameter show
    an effect, and PreconditionError if the server's reply lacks what the rule needs.
    """

    fields: Callable[[Completion], Fields]
    problem: Problem
    answers: int = 1
    is_streamed: bool = True
    least_tokens: int = _CUT_TOKENS + 3


def judge_parameter(parameter: Parameter, trials: Trials) -> Verdict:
    """A parameter has its effect on each case, and the same effect on a streamed answer.

    A case whose plain answer cannot show the effect is left out.

    Raises:
        PreconditionError: a reply lacks what the rule needs.
        UnsuitedError: no case can show the effect.
    """
    checks: dict[str, str | None] = {}
    unsuited = dict(trials.unsuited)
    for one in trials.tried:
        case_id = one.plain.case_id
        if isinstance(one.unstreamed, Refusal):
            checks[case_id] = str(one.unstreamed)
            continue
        try:
            checks[case_id] = _problem(parameter, one.plain, one.unstreamed)
        except UnsuitedError as error:
            unsuited[case_id] = str(error)
            continue
        if parameter.is_streamed:
            checks[f"{case_id}, streamed"] = _stream_problem(one.unstreamed, one.streamed)
    if not checks:
        raise UnsuitedError("; ".join(unsuited.values()))
    fields = {one.plain.case_id: dict(one.fields) for one in trials.tried}
    return checklist(checks, {"fields": fields, "unsuited": unsuited})


def refusal_of_all(trials: Trials) -> Refusal | None:
    """The first HTTP 400 or 422, if a server that may lack a parameter answers so in every case."""
    if not trials.may_lack:
        return None
    refusals = [one.unstreamed for one in trials.tried if isinstance(one.unstreamed, Refusal)]
    are_all = refusals and len(refusals) == len(trials.tried)
    return refusals[0] if are_all and all(map(_is_about_parameter, refusals)) else None


def is_suited(parameter: Parameter, answer: Completion) -> bool:
    """True if an answer ends by itself and is long enough to show what a parameter does.

    Raises:
        PreconditionError: the server returned no token ids.
    """
    return answer.finish_reason == "stop" and len(token_ids(answer)) >= parameter.least_tokens


def _is_about_parameter(refusal: Refusal) -> bool:
    return refusal.status in _UNKNOWN_PARAMETER and "context" not in refusal.message


def _problem(parameter: Parameter, plain: Completion, got: Sequence[Completion]) -> str | None:
    if len(got) != parameter.answers:
        return f"the number of answers is {len(got)}, the request asks for {parameter.answers}"
    return next(filter(None, (parameter.problem(plain, one) for one in got)), None)


def _stream_problem(unstreamed: Sequence[Completion], streamed: Sequence[Completion]) -> str | None:
    if len(streamed) != len(unstreamed):
        return f"the number of answers is {len(streamed)}, unstreamed {len(unstreamed)}"
    return next(filter(None, map(_streamed_otherwise, unstreamed, streamed)), None)


def _streamed_otherwise(unstreamed: Completion, streamed: Completion) -> str | None:
    if streamed.text != unstreamed.text:
        return "\n".join(("", *side_by_side(unstreamed.text, streamed.text, "unstreamed")))
    if _meanings(streamed) != _meanings(unstreamed):
        return f"the answer calls {told_calls(streamed)}, unstreamed {told_calls(unstreamed)}"
    if streamed.finish_reason != unstreamed.finish_reason:
        return (
            f"the finish reason is {streamed.finish_reason!r}, unstreamed "
            f"{unstreamed.finish_reason!r}"
        )
    return None


def _meanings(answer: Completion) -> list[tuple[str, Any]]:
    """Function and arguments of each call; spaces in JSON have no meaning."""
    return [(call.name, loaded(call.arguments)) for call in answer.tool_calls]


def loaded(text: str) -> Any:
    """The value of a JSON text, or the text itself if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def told_calls(answer: Completion) -> str:
    """The functions that an answer calls, with their arguments."""
    return ", ".join(map(str, answer.tool_calls)) or "no function"


def token_ids(answer: Completion) -> tuple[int, ...]:
    """The tokens of an answer.

    Raises:
        PreconditionError: the server returned none.
    """
    if not answer.token_ids:
        raise PreconditionError(
            f"{answer.case_id}: the server returned no token ids, so the parameter cannot be "
            "judged. vLLM returns token ids; a proxy in between may drop them."
        )
    return answer.token_ids


def _begins_like(plain: Completion, got: Completion, count: int) -> bool:
    """True if an answer begins with the first `count` tokens of the plain one.

    Raises:
        UnsuitedError: they differ where the model has two candidates that are nearly equal.
    """
    position = first_difference(token_ids(plain)[:count], token_ids(got)[:count])
    if position is not None and _is_tie(plain, got, position):
        raise UnsuitedError(
            f"{plain.case_id}: at token {position + 1} of the answer two candidates are nearly "
            "equal, so the answer may change there by itself"
        )
    return position is None


def _other_beginning(plain: Completion, got: Completion) -> str:
    return f"the answer begins otherwise: {got.text!r}, without the parameter {plain.text!r}"


def _is_tie(plain: Completion, got: Completion, position: int) -> bool:
    """True if both answers' tokens at a position are nearly equally likely in the plain answer."""
    return are_close(plain, got, position, _TIE)


# --- a greedy answer stays what it is -------------------------------------------------------------


def always(fields: Fields) -> Callable[[Completion], Fields]:
    """The same fields for every plain answer."""
    return lambda _: fields


def changed(plain: Completion, got: Completion) -> str | None:
    """What changes in a greedy answer.

    Sampling may choose either of two candidates that are equally likely.
    """
    position = first_difference(token_ids(plain), token_ids(got))
    if position is None or _is_tie(plain, got, position):
        return None
    return change(plain, got)


def change(plain: Completion, got: Completion) -> str:
    """A changed answer beside the plain one."""
    return "\n".join(("the answer changes:", *side_by_side(plain.text, got.text, "plain")))


def _begins(plain: Completion, got: Completion) -> str | None:
    return None if _begins_like(plain, got, _FEW_TOKENS) else _other_beginning(plain, got)


_NEARLY_ZERO: Fields = {"temperature": 0.01, "top_p": 0.001}

GREEDY: Mapping[str, Parameter] = {
    "temperature": Parameter(always(_NEARLY_ZERO), changed),
    "no_logprobs": Parameter(always({"logprobs": False, "top_logprobs": None}), changed),
    # vLLM refuses several answers at temperature 0. They are computed together, so that they may
    # part at near-ties: few tokens have few of these.
    "n": Parameter(always({**_NEARLY_ZERO, "n": 2, "max_tokens": _FEW_TOKENS}), _begins, answers=2),
}
"""Parameters that change no greedy answer; with `n`, only the beginning is asked for."""

LIMITS: Mapping[str, Parameter] = {
    "temperature-alone": Parameter(always({"temperature": 0.01}), changed),
    "top_p": Parameter(always({"top_p": 1e-6}), changed),
    "top_k": Parameter(always({"top_k": 1}), changed),
    "min_p": Parameter(always({"min_p": 1.0}), changed),
}
"""Parameters that make a sampled answer greedy; they are sent with a high temperature."""


# --- which tokens are sampled ---------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingLimit:
    """A parameter that leaves the likeliest tokens of a sampled answer.

    Attributes:
        fields: the request's fields.
        leaves: gets the listed tokens of a position (token id -> log-probability at temperature 1)
            and a token; True if the parameter leaves that token.
    """

    fields: Fields
    leaves: Callable[[Mapping[int, float], int], bool]

    @property
    def parameter(self) -> Parameter:
        """The parameter; its plain answer was sampled without it, at temperature 1."""
        return Parameter(always(self.fields), self._problem, is_streamed=False)

    def acts_on(self, sampled: Completion) -> bool:
        """True if the parameter does not leave each token of an answer.

        Raises:
            PreconditionError: the server returned no token ids, or lists no log-probabilities.
        """
        return self._first_outside(sampled) is not None

    def _first_outside(self, sampled: Completion) -> int | None:
        outside = (
            place
            for place, token in enumerate(token_ids(sampled))
            if not self.leaves(_listed(sampled, place), token)
        )
        return next(outside, None)

    def _problem(self, _: Completion, got: Completion) -> str | None:
        place = self._first_outside(got)
        if place is None:
            return None
        token = token_ids(got)[place]
        value = _listed(got, place).get(token, -math.inf)
        likeliest = sorted(_listed(got, place).values(), reverse=True)[:_SHOWN]
        return (
            f"token {place + 1} of the answer, id {token}, has log-probability {value:.2f}; the "
            f"likeliest have {', '.join(f'{one:.2f}' for one in likeliest)}"
        )


def _is_among_two(listed: Mapping[int, float], token: int) -> bool:
    second = sorted(listed.values(), reverse=True)[:2][-1]
    return listed.get(token, -math.inf) >= second - _TIE


def _is_in_nucleus(listed: Mapping[int, float], token: int) -> bool:
    """True if the tokens that are clearly likelier have less than the limit together."""
    value = listed.get(token, -math.inf)
    before = sum(math.exp(other) for other in listed.values() if other > value + _TIE)
    return before < _TOP_P + _ROUNDED_SHARE


def _is_likely_enough(listed: Mapping[int, float], token: int) -> bool:
    least = max(listed.values()) + math.log(_MIN_P)
    return listed.get(token, -math.inf) >= least - _TIE


SAMPLED: Mapping[str, SamplingLimit] = {
    "top_k": SamplingLimit({"top_k": 2}, _is_among_two),
    "top_p": SamplingLimit({"top_p": _TOP_P}, _is_in_nucleus),
    "min_p": SamplingLimit({"min_p": _MIN_P}, _is_likely_enough),
}
"""Parameters that leave several tokens of a sampled answer."""


# --- where an answer ends -------------------------------------------------------------------------


def _longer(plain: Completion) -> int:
    return len(token_ids(plain)) + _EXTRA_TOKENS


def _continues(plain: Completion, got: Completion, tokens: range) -> str | None:
    """The answer begins like the plain one without its end token, and has a number of tokens."""
    if not _begins_like(plain, got, len(token_ids(plain)) - 1):
        return _other_beginning(plain, got)
    if len(token_ids(got)) not in tokens:
        return f"the answer has {len(token_ids(got))} tokens, not {_told(tokens)}"
    return None


def _told(tokens: range) -> str:
    return f"{tokens[0]}" if len(tokens) == 1 else f"{tokens[0]} to {tokens[-1]}"


def _is_cut(plain: Completion, got: Completion) -> str | None:
    is_beginning, tokens = _begins_like(plain, got, _CUT_TOKENS), len(token_ids(got))
    if is_beginning and tokens == _CUT_TOKENS and got.finish_reason == "length":
        return None
    return (
        f"the answer is {got.text!r} ({tokens} tokens, {got.finish_reason!r}), not the first "
        f"{_CUT_TOKENS} tokens of {plain.text!r}"
    )


def _first_new(plain: Completion) -> int:
    """A position after the first tokens whose token does not occur before it."""
    ids = token_ids(plain)
    for position in range(_CUT_TOKENS - 1, len(ids) - 1):
        if ids[position] not in ids[:position]:
            return position
    raise UnsuitedError(f"{plain.case_id}: every token of the answer {plain.text!r} repeats")


def _stopped(plain: Completion, got: Completion) -> str | None:
    """The answer ends at the stop token, which the list of ids may contain."""
    end, ids = _first_new(plain), token_ids(plain)
    is_beginning = _begins_like(plain, got, end)
    if is_beginning and token_ids(got)[end:] in {(), (ids[end],)} and got.finish_reason == "stop":
        return None
    return (
        f"the answer is {got.text!r} ({got.finish_reason!r}); the stop token (id {ids[end]}) is at "
        f"place {end + 1} of {plain.text!r}"
    )


def _stop_string(plain: Completion, length: int = 1) -> str:
    """The first characters, from the third place on, that do not occur together before."""
    for place in range(2, len(plain.text) - length + 1):
        found = plain.text[place : place + length]
        if not found[0].isspace() and plain.text.index(found) == place:
            return found
    raise UnsuitedError(f"{plain.case_id}: every character of {plain.text!r} repeats")


def _ends_at_stop(plain: Completion, got: Completion, stop: str, kept: int = 0) -> str | None:
    """The answer ends at the stop string, of which `kept` characters are in the answer."""
    expected = plain.text[: plain.text.index(stop) + kept]
    if got.text == expected and got.finish_reason == "stop":
        return None
    _begins_like(plain, got, len(token_ids(got)))  # a near-tie is no problem of the parameter
    return f"the answer is {got.text!r} ({got.finish_reason!r}), expected is {expected!r}"


def _shows_its_end(plain: Completion, got: Completion) -> str | None:
    """The answer is the plain one with the text of its end token behind it."""
    shown = got.text.removeprefix(plain.text)
    if shown not in {"", got.text} and got.finish_reason == "stop":
        return None
    _begins_like(plain, got, len(token_ids(got)))  # a near-tie is no problem of the parameter
    return f"the answer is {got.text!r}, not {plain.text!r} and the text of its end token"


ENDS: Mapping[str, Parameter] = {
    "min_tokens": Parameter(
        lambda plain: {"min_tokens": _longer(plain), "max_tokens": _longer(plain) + _EXTRA_TOKENS},
        lambda plain, got: _continues(
            plain, got, range(_longer(plain), _longer(plain) + _EXTRA_TOKENS + 1)
        ),
    ),
    "ignore_eos": Parameter(
        lambda plain: {"ignore_eos": True, "max_tokens": _longer(plain)},
        lambda plain, got: _continues(plain, got, range(_longer(plain), _longer(plain) + 1)),
    ),
    "no_max_tokens": Parameter(
        always({"max_tokens": None}), changed, least_tokens=_DEFAULT_TOKENS + 1
    ),
    "max_completion_tokens": Parameter(
        always({"max_tokens": None, "max_completion_tokens": _CUT_TOKENS}), _is_cut
    ),
    "stop": Parameter(
        lambda plain: {"stop": _stop_string(plain)},
        lambda plain, got: _ends_at_stop(plain, got, _stop_string(plain)),
    ),
    "stop-list": Parameter(
        lambda plain: {"stop": [_ABSENT, _stop_string(plain, _CUT_TOKENS)]},
        lambda plain, got: _ends_at_stop(plain, got, _stop_string(plain, _CUT_TOKENS)),
    ),
    "stop_token_ids": Parameter(
        lambda plain: {"stop_token_ids": [token_ids(plain)[_first_new(plain)]]}, _stopped
    ),
    "include_stop_str_in_output": Parameter(
        lambda plain: {"stop": _stop_string(plain), "include_stop_str_in_output": True},
        lambda plain, got: _ends_at_stop(plain, got, _stop_string(plain), kept=1),
    ),
    "skip_special_tokens": Parameter(
        always({"skip_special_tokens": False, "include_stop_str_in_output": True}), _shows_its_end
    ),
}
"""Parameters that decide where an answer ends. The plain answer ends by itself (`is_suited`)."""


# --- which token is chosen ------------------------------------------------------------------------


def _choice(plain: Completion, got: Completion, adjust: Adjust) -> str | None:
    """Each token is the likeliest after the change of the logits.

    As `_first_choice`. Behind the first difference the answer's own lists tell what is likely, if
    they are of the logits before the change (`_are_before`).
    """
    if problem := _first_choice(plain, got, adjust):
        return problem
    position = first_difference(token_ids(plain), token_ids(got)) or 0
    behind = range(position + 1, len(token_ids(got))) if _are_before(plain, got, position) else ()
    problems = (_wrong_choice(_listed(got, place), got, place, adjust) for place in behind)
    return next(filter(None, problems), None)


def _first_choice(plain: Completion, got: Completion, adjust: Adjust) -> str | None:
    """Up to the first difference, each token is the likeliest after the change of the logits.

    Args:
        plain: the plain answer, with the listed tokens of each position.
        got: the answer with the parameter.
        adjust: gets a token, its log-probability, and the answer's tokens before it; returns the
            changed value.

    Raises:
        PreconditionError: the server lists no log-probabilities.
        UnsuitedError: the change of the logits changes none of the plain answer's tokens.
    """
    position = first_difference(token_ids(plain), token_ids(got))
    same = len(token_ids(plain)) if position is None else min(position + 1, len(token_ids(plain)))
    for place in range(same):
        if problem := _wrong_choice(_listed(plain, place), got, place, adjust):
            return problem
    if position is None or not _acts(_listed(plain, position), got, position, adjust):
        raise UnsuitedError(
            f"{plain.case_id}: the parameter changes no token of the answer {plain.text!r}"
        )
    return None


def _wrong_choice(
    listed: Mapping[int, float], got: Completion, position: int, adjust: Adjust
) -> str | None:
    token, before = token_at(token_ids(got), position), token_ids(got)[:position]
    changed = {one: adjust(one, value, before) for one, value in listed.items()}
    best = max(changed, key=lambda one: changed[one])
    # An unlisted token may be the likeliest if every listed one loses.
    least = min(listed.values())
    value = least if token is None else changed.get(token, least)
    if value >= changed[best] - _ROUNDING or changed[best] <= least:
        return None
    return (
        f"token {position + 1} of the answer has id {token}, but with the parameter id {best} is "
        f"the likeliest ({changed[best]:.3g}, {value:.3g})"
    )


def _acts(listed: Mapping[int, float], got: Completion, position: int, adjust: Adjust) -> bool:
    """True if a change of the logits changes any value at a position."""
    before = token_ids(got)[:position]
    return any(adjust(one, value, before) != value for one, value in listed.items())


def _are_before(plain: Completion, got: Completion, position: int) -> bool:
    """True if an answer's lists are of the logits before a parameter changes them.

    Up to this position both answers are the same, so the lists are equal if nothing changed them.
    """
    if got.top is None or len(got.top) < len(token_ids(got)):
        return False
    one, other = _listed(plain, position), _listed(got, position)
    shared = one.keys() & other.keys()
    return bool(shared) and all(abs(one[token] - other[token]) <= _ROUNDING for token in shared)


def _listed(answer: Completion, position: int) -> Mapping[int, float]:
    listed = answer.candidates_at(position)
    if not listed:
        raise PreconditionError(
            f"{answer.case_id}: the server lists no log-probabilities for token {position + 1} of "
            "the answer, so the parameter cannot be judged."
        )
    return listed


def _bias(token: int, bias: float) -> Adjust:
    return lambda one, value, _: value + bias if one == token else value


def _biased(plain: Completion) -> int:
    """A token of the answer that is not its first one."""
    first, *others = token_ids(plain)
    for token in others:
        if token != first:
            return token
    raise UnsuitedError(f"{plain.case_id}: the answer {plain.text!r} has only one different token")


def _is_biased(plain: Completion, got: Completion) -> str | None:
    token = _biased(plain)
    if set(token_ids(got)) == {token}:
        return None
    return f"a bias of {_BIAS_FOR} for token {token} gives the tokens {list(token_ids(got))}"


def _repetition_problem(plain: Completion, got: Completion) -> str | None:
    """The first token that changes is neither in the prompt nor before it in the answer.

    The penalty is so large that it leaves nothing of a positive logit. Later, when only tokens with
    negative logits are left, it may choose one again.
    """
    if plain.prompt_token_ids is None:
        raise PreconditionError(
            f"{plain.case_id}: the server returned no tokens of the prompt, which the penalty "
            "counts. vLLM returns them; a proxy in between may drop them."
        )
    prompt = set(plain.prompt_token_ids)

    def lowered(token: int, value: float, before: tuple[int, ...]) -> float:
        return -math.inf if token in prompt or token in before else value

    return _first_choice(plain, got, lowered)


CHOICES: Mapping[str, Parameter] = {
    "logit_bias-against": Parameter(
        lambda plain: {**LONG, "logit_bias": {str(token_ids(plain)[0]): _BIAS_AGAINST}},
        lambda plain, got: _choice(plain, got, _bias(token_ids(plain)[0], _BIAS_AGAINST)),
    ),
    "logit_bias-for": Parameter(
        lambda plain: {"logit_bias": {str(_biased(plain)): _BIAS_FOR}, "max_tokens": _CUT_TOKENS},
        _is_biased,
    ),
    "repetition_penalty": Parameter(
        always({**LONG, "repetition_penalty": _REPETITION_PENALTY}), _repetition_problem
    ),
    "presence_penalty": Parameter(
        always({**LONG, "presence_penalty": _PENALTY}),
        lambda plain, got: _choice(
            plain, got, lambda one, value, before: value - _PENALTY * (one in before)
        ),
    ),
    "frequency_penalty": Parameter(
        always({**LONG, "frequency_penalty": _PENALTY}),
        lambda plain, got: _choice(
            plain, got, lambda one, value, before: value - _PENALTY * before.count(one)
        ),
    ),
}
"""Parameters that change the logits. The plain answer has the fields `LONG`."""


# --- the form of an answer ------------------------------------------------------------------------


def _one_of(_: Completion, got: Completion) -> str | None:
    is_right = _is_one_of(got, got.text, _COLOURS)
    return None if is_right else f"{got.text!r} is none of {list(_COLOURS)}"


def _matches(_: Completion, got: Completion) -> str | None:
    least = 0 if _ends_early(got) else _DIGITS
    is_right = re.fullmatch(f"[0-9]{{{least},{_DIGITS}}}", got.text)
    return None if is_right else f"{got.text!r} is not {_DIGITS} digits"


def _follows_schema(_: Completion, got: Completion) -> str | None:
    objects = [f'{{"answer":"{word}"}}' for word in _WORDS]
    without_spaces = "".join(got.text.split())
    is_right = _is_one_of(got, without_spaces, objects)
    return None if is_right else f"{got.text!r} is neither {objects[0]} nor {objects[1]}"


def _is_one_of(got: Completion, text: str, forms: Iterable[str]) -> bool:
    """True if a text is one of the forms, or the beginning of one and max_tokens cut it."""
    return text in forms or (_ends_early(got) and any(form.startswith(text) for form in forms))


def _is_object(_: Completion, got: Completion) -> str | None:
    """The answer is a JSON object, or begins like one if max_tokens cuts it."""
    if _ends_early(got):
        is_begun = got.text.lstrip()[:1] in {"", "{"}
        return None if is_begun else f"{got.text!r} does not begin like an object"
    try:
        found = json.loads(got.text)
    except ValueError as error:
        return f"{got.text!r} is no JSON: {error}"
    return None if isinstance(found, dict) else f"{got.text!r} is no object"


def _ends_early(answer: Completion) -> bool:
    return answer.finish_reason == "length"


FORMS: Mapping[str, Parameter] = {
    "choice": Parameter(always({"structured_outputs": {"choice": list(_COLOURS)}}), _one_of),
    "regex": Parameter(always({"structured_outputs": {"regex": f"[0-9]{{{_DIGITS}}}"}}), _matches),
    "json_schema": Parameter(
        always(
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": _SCHEMA},
                }
            }
        ),
        _follows_schema,
    ),
    "json_object": Parameter(always({"response_format": {"type": "json_object"}}), _is_object),
}
"""Parameters that allow only answers of one form."""
