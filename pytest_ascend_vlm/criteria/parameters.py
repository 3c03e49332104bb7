"""Rules of parameters.*: what a request parameter does to a greedy answer.

Each rule predicts it from the plain answer, which is the answer without the parameter: from its
tokens, and from the likeliest tokens that are listed at each of them. So no right answer is needed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import PreconditionError
from ..observation.answers import Completion, Refusal
from ..observation.parameters import Trials, Tried
from .text import side_by_side
from .verdict import Verdict, checklist

Fields = Mapping[str, Any]

LONG: Fields = {"ignore_eos": True, "max_tokens": 96}
"""The fields of an answer that goes on behind its end, so that many of its tokens occur again."""

_MORE = 8
_FEW = 3
_LIKES, _FORBIDS = 100, -100
_ROUNDING = 0.5  # of a bf16 logit from 32 to 64 it is 0.125, on both sides of a comparison
_REPETITION, _ADDED = 1000.0, 2.0
_COLOURS = ("red", "blue")
_DIGITS = "[0-9]{4}"
_WORDS = ("yes", "no")
_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": list(_WORDS)}},
    "required": ["answer"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Parameter:
    """A request parameter and its effect.

    Attributes:
        fields: makes the request's fields from the plain answer.
        problem: takes the plain answer and the one with the parameter; returns what is wrong, or
            None.

    Both raise PreconditionError if the plain answer does not let the parameter show an effect.
    """

    fields: Callable[[Completion], Fields]
    problem: Callable[[Completion, Completion], str | None]


def judge_parameter(parameter: Parameter, trials: Trials) -> Verdict:
    """A parameter has its effect on each case, and the same effect on a streamed answer.

    A case whose plain answer cannot show the effect is left out.

    Raises:
        PreconditionError: no case can show it.
    """
    checks: dict[str, str | None] = {}
    unsuited = dict(trials.unsuited)
    for one in trials.tried:
        case_id = one.plain.case_id
        try:
            checks[case_id] = _problem(parameter, one)
        except PreconditionError as error:
            unsuited[case_id] = str(error)
            continue
        if one.streamed is not None and isinstance(one.whole, Completion):
            checks[f"{case_id}, streamed"] = _stream_problem(one.whole, one.streamed)
    if not checks:
        raise PreconditionError("; ".join(unsuited.values()))
    fields = {one.plain.case_id: dict(one.fields) for one in trials.tried}
    return checklist(checks, {"fields": fields, "unsuited": unsuited})


def refusal_of_all(trials: Trials) -> Refusal | None:
    """The first 4xx, if the server refuses the parameter with a 4xx for every case."""
    refusals = [one.whole for one in trials.tried if isinstance(one.whole, Refusal)]
    are_all = refusals and len(refusals) == len(trials.tried)
    return refusals[0] if are_all and all(400 <= one.status < 500 for one in refusals) else None


def is_suited(answer: Completion) -> bool:
    """True if an answer ends by itself and is long enough to be cut."""
    return answer.finish_reason == "stop" and len(answer.token_ids or ()) > _FEW + 2


def _problem(parameter: Parameter, one: Tried) -> str | None:
    if isinstance(one.whole, Refusal):
        return str(one.whole)
    return parameter.problem(one.plain, one.whole)


def _stream_problem(whole: Completion, streamed: Completion) -> str | None:
    if streamed.text == whole.text and streamed.finish_reason == whole.finish_reason:
        return None
    ends = f"ends with {streamed.finish_reason!r}, unstreamed with {whole.finish_reason!r}"
    return "\n".join((ends, *side_by_side(whole.text, streamed.text, "whole")))


# --- a greedy answer stays what it is -------------------------------------------------------------


def _always(fields: Fields) -> Callable[[Completion], Fields]:
    return lambda _: fields


def _changed(plain: Completion, got: Completion) -> str | None:
    if _ids(plain) == _ids(got):
        return None
    return "\n".join(("the answer changes:", *side_by_side(plain.text, got.text, "plain")))


GREEDY: Mapping[str, Parameter] = {
    "temperature": Parameter(_always({"temperature": 0.01, "top_p": 0.001}), _changed),
    "no_logprobs": Parameter(_always({"logprobs": False, "top_logprobs": None}), _changed),
}
"""Parameters that change no greedy answer."""

LIMITS: Mapping[str, Parameter] = {
    "top_p": Parameter(_always({"top_p": 1e-6}), _changed),
    "top_k": Parameter(_always({"top_k": 1}), _changed),
    "min_p": Parameter(_always({"min_p": 1.0}), _changed),
}
"""Parameters that make a sampled answer greedy; they are sent with a high temperature."""


# --- where an answer ends -------------------------------------------------------------------------


def _longer(plain: Completion) -> int:
    return len(_ids(plain)) + _MORE


def _goes_on(plain: Completion, got: Completion, tokens: range) -> str | None:
    """The answer begins like the plain one without its end, and has a number of tokens."""
    before = _ids(plain)[:-1]  # the last one ends the answer
    ids = _ids(got)
    if ids[: len(before)] != before:
        return f"the answer begins otherwise: {got.text!r}, without the parameter {plain.text!r}"
    if len(ids) not in tokens:
        return f"the answer has {len(ids)} tokens, not {_told(tokens)}"
    return None


def _told(tokens: range) -> str:
    return f"{tokens[0]}" if len(tokens) == 1 else f"{tokens[0]} to {tokens[-1]}"


def _cut_behind(tokens: int, finish: str) -> Callable[[Completion, Completion], str | None]:
    def problem(plain: Completion, got: Completion) -> str | None:
        if _ids(got) == _ids(plain)[:tokens] and got.finish_reason == finish:
            return None
        return (
            f"the answer is {got.text!r} ({len(_ids(got))} tokens, {got.finish_reason!r}), not the "
            f"first {tokens} tokens of {plain.text!r}"
        )

    return problem


def _first_new(plain: Completion) -> int:
    """A position behind the first token whose token does not occur before it."""
    ids = _ids(plain)
    for position in range(_FEW - 1, len(ids) - 1):
        if ids[position] not in ids[:position]:
            return position
    raise PreconditionError(f"{plain.case_id}: every token of the answer {plain.text!r} repeats.")


def _stopped(plain: Completion, got: Completion) -> str | None:
    """The answer ends at a token, which the list of ids may contain."""
    end = _first_new(plain)
    ids = _ids(plain)
    if _ids(got) in {ids[:end], ids[: end + 1]} and got.finish_reason == "stop":
        return None
    return (
        f"the answer is {got.text!r} ({got.finish_reason!r}); token {ids[end]} is token {end + 1} "
        f"of {plain.text!r}"
    )


def _stop_string(plain: Completion) -> str:
    """A character of the answer that does not occur before its third place."""
    for place in range(2, len(plain.text)):
        if not plain.text[place].isspace() and plain.text[place] not in plain.text[:place]:
            return plain.text[place]
    raise PreconditionError(f"{plain.case_id}: every character of {plain.text!r} repeats.")


def _includes_stop(plain: Completion, got: Completion) -> str | None:
    stop = _stop_string(plain)
    expected = plain.text[: plain.text.index(stop) + 1]
    if got.text == expected and got.finish_reason == "stop":
        return None
    return f"the answer is {got.text!r} ({got.finish_reason!r}), expected is {expected!r}"


ENDS: Mapping[str, Parameter] = {
    "min_tokens": Parameter(
        lambda plain: {"min_tokens": _longer(plain), "max_tokens": _longer(plain) + _MORE},
        lambda plain, got: _goes_on(plain, got, range(_longer(plain), _longer(plain) + _MORE + 1)),
    ),
    "ignore_eos": Parameter(
        lambda plain: {"ignore_eos": True, "max_tokens": _longer(plain)},
        lambda plain, got: _goes_on(plain, got, range(_longer(plain), _longer(plain) + 1)),
    ),
    "max_completion_tokens": Parameter(
        _always({"max_tokens": None, "max_completion_tokens": _FEW}), _cut_behind(_FEW, "length")
    ),
    "stop_token_ids": Parameter(
        lambda plain: {"stop_token_ids": [_ids(plain)[_first_new(plain)]]}, _stopped
    ),
    "include_stop_str_in_output": Parameter(
        lambda plain: {"stop": _stop_string(plain), "include_stop_str_in_output": True},
        _includes_stop,
    ),
}
"""Parameters of an answer's end. The plain answer ends by itself (`is_suited`)."""


# --- which token is chosen ------------------------------------------------------------------------


def _choice(
    plain: Completion, got: Completion, adjust: Callable[[int, float, tuple[int, ...]], float]
) -> str | None:
    """The first token that a change of the logits changes is the likeliest after that change.

    Args:
        plain: the plain answer, with the listed tokens of each position.
        got: the answer with the parameter.
        adjust: gets a token, its log-probability, and the answer's tokens before it; returns the
            changed value.

    Raises:
        PreconditionError: the plain answer has no lists, or the change of the logits changes none
            of its tokens.
    """
    ids, others = _ids(plain), _ids(got)
    if plain.top is None:
        raise PreconditionError(f"{plain.case_id}: the server lists no log-probabilities.")
    for position, token in enumerate(ids):
        listed = plain.top.at(position)
        changed = {one: adjust(one, value, ids[:position]) for one, value in listed.items()}
        best = max(changed, key=lambda one: changed[one])
        other = others[position] if position < len(others) else None
        # An unlisted token may be the likeliest if every listed one loses.
        least = min(listed.values())
        value = least if other is None or other not in changed else changed[other]
        if value < changed[best] - _ROUNDING and changed[best] > least:
            return (
                f"token {position + 1} of the answer is {other}, but the parameter makes {best} "
                f"the likeliest; without the parameter it is {token}"
            )
        if other != token:
            return None
    raise PreconditionError(
        f"{plain.case_id}: the parameter changes no token of the answer {plain.text!r}, so its "
        "effect cannot be judged."
    )


def _bias(token: int, bias: float) -> Callable[[int, float, tuple[int, ...]], float]:
    return lambda one, value, _: value + bias if one == token else value


def _liked(plain: Completion) -> int:
    """A token that is not the first of the answer."""
    first, *others = _ids(plain)
    for token in others:
        if token != first:
            return token
    raise PreconditionError(f"{plain.case_id}: the answer {plain.text!r} has only one token.")


def _only_liked(plain: Completion, got: Completion) -> str | None:
    liked = _liked(plain)
    if set(_ids(got)) == {liked}:
        return None
    return f"a bias of {_LIKES} for token {liked} gives the tokens {list(_ids(got))}"


def _repetition_problem(plain: Completion, got: Completion) -> str | None:
    """No token of prompt or answer is chosen again while another one is listed.

    The penalty is so large that it leaves nothing of a positive logit.
    """
    prompt = set(plain.prompt_token_ids or ())

    def lowered(token: int, value: float, before: tuple[int, ...]) -> float:
        return -math.inf if token in prompt or token in before else value

    return _choice(plain, got, lowered)


CHOICES: Mapping[str, Parameter] = {
    "logit_bias-against": Parameter(
        lambda plain: {"logit_bias": {str(_ids(plain)[0]): _FORBIDS}},
        lambda plain, got: _choice(plain, got, _bias(_ids(plain)[0], _FORBIDS)),
    ),
    "logit_bias-for": Parameter(
        lambda plain: {"logit_bias": {str(_liked(plain)): _LIKES}, "max_tokens": _FEW}, _only_liked
    ),
    "repetition_penalty": Parameter(
        _always({**LONG, "repetition_penalty": _REPETITION}), _repetition_problem
    ),
    "presence_penalty": Parameter(
        _always({**LONG, "presence_penalty": _ADDED}),
        lambda plain, got: _choice(
            plain, got, lambda one, value, before: value - _ADDED * (one in before)
        ),
    ),
    "frequency_penalty": Parameter(
        _always({**LONG, "frequency_penalty": _ADDED}),
        lambda plain, got: _choice(
            plain, got, lambda one, value, before: value - _ADDED * before.count(one)
        ),
    ),
}
"""Parameters that change the logits. The plain answer has the fields `LONG`."""


# --- the form of an answer ------------------------------------------------------------------------


def _one_of(_: Completion, got: Completion) -> str | None:
    return None if got.text in _COLOURS else f"{got.text!r} is none of {list(_COLOURS)}"


def _matches(_: Completion, got: Completion) -> str | None:
    return None if re.fullmatch(_DIGITS, got.text) else f"{got.text!r} does not match {_DIGITS}"


def _follows_schema(_: Completion, got: Completion) -> str | None:
    """The answer is an object of the schema, or the beginning of one if max_tokens cuts it."""
    objects = [f'{{"answer":"{word}"}}' for word in _WORDS]
    dense = "".join(got.text.split())
    if dense in objects or (_is_cut(got) and any(one.startswith(dense) for one in objects)):
        return None
    return f"{got.text!r} does not follow the schema: {objects[0]} or {objects[1]}"


def _is_object(_: Completion, got: Completion) -> str | None:
    """The answer is a JSON object, or begins like one if max_tokens cuts it."""
    if _is_cut(got):
        is_begun = got.text.lstrip()[:1] in {"", "{"}
        return None if is_begun else f"{got.text!r} does not begin like an object"
    try:
        found = json.loads(got.text)
    except ValueError as error:
        return f"{got.text!r} is no JSON: {error}"
    return None if isinstance(found, dict) else f"{got.text!r} is no object"


def _is_cut(answer: Completion) -> bool:
    return answer.finish_reason == "length"


FORMS: Mapping[str, Parameter] = {
    "choice": Parameter(_always({"structured_outputs": {"choice": list(_COLOURS)}}), _one_of),
    "regex": Parameter(_always({"structured_outputs": {"regex": _DIGITS}}), _matches),
    "json_schema": Parameter(
        _always(
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": _SCHEMA},
                }
            }
        ),
        _follows_schema,
    ),
    "json_object": Parameter(_always({"response_format": {"type": "json_object"}}), _is_object),
}
"""Parameters that allow only answers of one form."""


def _ids(answer: Completion) -> tuple[int, ...]:
    if not answer.token_ids:
        raise PreconditionError(
            f"{answer.case_id}: the server returned no token ids, so the parameter cannot be "
            "judged. vLLM returns token ids; a proxy in between may drop them."
        )
    return answer.token_ids
