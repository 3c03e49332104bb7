"""Requests with different parameters in one crowd: what is left out, and what is excused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from unittest.mock import Mock

import pytest
from test_criteria_parameters import answer, listing

from pytest_ascend_vlm.criteria.company import COMPANIES, GREEDY, Neighbour, judge_together
from pytest_ascend_vlm.observation.answers import Completion, Refusal
from pytest_ascend_vlm.observation.parameters import UnsuitedError
from pytest_ascend_vlm.session.company import Company, Wish
from pytest_ascend_vlm.session.parameters import ParameterRuns
from pytest_ascend_vlm.spec.case import Capability, Case

OPEN = Case("text/open", Capability.TEXT, "Write.")
LISTS = {10: -0.1, 20: -3.0, 30: -4.0}, {11: -0.5, 21: -0.9, 31: -1.2}
ALONE = listing((10, 11), *LISTS)


def judged_greedy(got: Completion | Refusal) -> Any:
    one = Neighbour("greedy, text/open", GREEDY["greedy"].parameter, ALONE, ALONE, got)
    return judge_together([one], {})


@pytest.mark.parametrize(
    ("ids", "passes"),
    [((10, 11), True), ((10, 21), True), ((10, 31), False), ((20, 11), False), ((10,), False)],
    ids=["same", "near-tie", "no-tie", "other", "shorter"],
)
def test_only_a_near_tie_excuses_another_answer(ids: tuple[int, ...], passes: bool) -> None:
    assert judged_greedy(listing(ids, *LISTS[: len(ids)])).passed is passes


def test_a_near_tie_that_is_none_among_others_excuses_nothing() -> None:
    certain = listing((10, 21), LISTS[0], {11: -2.5, 21: -0.1, 31: -3.0})
    assert not judged_greedy(certain).passed


def test_another_answer_with_the_effect_of_the_parameters_is_right() -> None:
    choice = COMPANIES["form"]["choice"].parameter
    red, blue = (dataclasses.replace(answer((10,)), text=word) for word in ("red", "blue"))
    texts = (blue, dataclasses.replace(answer((11,)), text="green"))
    verdicts = [
        judge_together([Neighbour("choice", choice, ALONE, red, text)], {}).passed for text in texts
    ]
    assert verdicts == [True, False]


def test_a_refusal_among_others_is_a_problem() -> None:
    verdict = judged_greedy(Refusal.of(500, "a mask of another shape"))
    assert "HTTP 500: a mask of another shape" in verdict.details[0]


def asked(replies: Mapping[str, Completion | Refusal]) -> Company:
    """A company whose server has one reply to each parameter, and the plain answer to others."""

    def ask(_: Case, fields: Mapping[str, Any]) -> Completion | Refusal:
        return next((reply for name, reply in replies.items() if name in fields), ALONE)

    client = Mock()
    client.ask_with = ask
    return Company(ParameterRuns(client, may_lack=False))


def wishes(members: Mapping[str, Any], *names: str) -> list[Wish]:
    return [Wish(name, OPEN, members[name]) for name in names]


def test_what_a_server_refuses_alone_is_not_asked_among_others() -> None:
    company = asked({"top_k": Refusal.of(400, "no top_k"), "ignore_eos": ALONE})
    with pytest.raises(UnsuitedError, match="top_k: HTTP 400: no top_k"):
        company.ask(wishes(GREEDY, "greedy"), wishes(COMPANIES["sampling"], "top_k"))


def test_a_server_that_fails_alone_is_asked_nothing_more() -> None:
    company = asked({"structured_outputs": Refusal.of(500, "bf16")})
    (one,), _ = company.ask(wishes(GREEDY, "greedy"), wishes(COMPANIES["form"], "choice", "regex"))
    assert "HTTP 500: bf16" in judge_together([one], {}).details[0]
