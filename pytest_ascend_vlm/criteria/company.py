"""Rules of parameters.together: what one request asks for changes no other request's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..observation.answers import Completion, Refusal
from ..observation.parameters import UnsuitedError
from . import parameters as rules
from .determinism import agree
from .parameters import Fields, Parameter
from .verdict import Verdict, checklist


@dataclass(frozen=True)
class Member:
    """A kind of request in a crowd whose requests have different parameters.

    Attributes:
        parameter: its parameters, and their effect.
        plain: the fields of the plain answer that the effect is predicted from.
    """

    parameter: Parameter
    plain: Fields


@dataclass(frozen=True, eq=False)
class Neighbour:
    """One request of the crowd.

    Attributes:
        name: its parameters and its case.
        parameter: its parameters, and their effect.
        plain: the answer without the parameters.
        alone: the answer with them, to the request alone.
        together: the answer among the others, or the HTTP error.
    """

    name: str
    parameter: Parameter
    plain: Completion
    alone: Completion
    together: Completion | Refusal


def _greedy(fields: Fields) -> Member:
    return Member(Parameter(rules.always(fields), _changed), fields)


def _changed(plain: Completion, got: Completion) -> str | None:
    """What changes in a greedy answer; the answers may part at a near-tie of both."""
    return None if agree(plain, got) else rules.change(plain, got)


def _biased(plain: Completion) -> Fields:
    """As many tokens as the other answers have, so that the bias is there as long as they are."""
    return {**rules.CHOICES["logit_bias-for"].fields(plain), **rules.LONG}


GREEDY: Mapping[str, Member] = {"greedy": _greedy({}), "greedy_long": _greedy(rules.LONG)}
"""The requests that the parameters of the others must not reach."""

_HOT: Fields = {**rules.LONG, "temperature": 2.0, "seed": 1, "top_k": 1}

COMPANIES: Mapping[str, Mapping[str, Member]] = {
    "sampling": {
        "top_k": Member(Parameter(rules.always(_HOT), rules.changed), rules.LONG),
        "logit_bias": Member(Parameter(_biased, rules.CHOICES["logit_bias-for"].problem), {}),
        "presence_penalty": Member(rules.CHOICES["presence_penalty"], rules.LONG),
        "min_tokens": Member(rules.ENDS["min_tokens"], {}),
        "ignore_eos": Member(rules.ENDS["ignore_eos"], {}),
        "stop": Member(rules.ENDS["stop"], {}),
    },
    "form": {name: Member(rules.FORMS[name], {}) for name in ("choice", "regex", "json_object")},
}
"""Name of a crowd -> the requests with parameters that are in it besides `GREEDY`."""


def effect_problem(parameter: Parameter, plain: Completion, got: Completion) -> str | None:
    """The reason why a parameter's effect cannot be seen in an answer, or None.

    Raises:
        PreconditionError: the reply lacks what the rule needs.
    """
    try:
        return parameter.problem(plain, got)
    except UnsuitedError as error:
        return str(error)


def judge_together(neighbours: Sequence[Neighbour], left_out: Mapping[str, str]) -> Verdict:
    """Each request among others gets its lone answer, or one with the effect of its parameters.

    An answer may differ from a token on at which two candidates are nearly equal.

    Args:
        neighbours: the requests that were asked together.
        left_out: name of a request -> why it was not among them.

    Raises:
        PreconditionError: a reply lacks what a rule needs.
    """
    checks = {one.name: _problem(one) for one in neighbours}
    return checklist(checks, {"left_out": dict(left_out)})


def _problem(one: Neighbour) -> str | None:
    if isinstance(one.together, Refusal):
        return str(one.together)
    if agree(one.alone, one.together):
        return None
    try:
        return one.parameter.problem(one.plain, one.together)
    except UnsuitedError:  # the answers part at a near-tie
        return None
