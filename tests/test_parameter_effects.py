"""The page about request parameters: what it says of an answer with a parameter."""

from __future__ import annotations

import pytest
from parameter_effects import effect

from pytest_ascend_vlm.observation.answers import Completion, Refusal


def answer(ids: tuple[int, ...], text: str = "text", finish: str = "stop") -> Completion:
    return Completion("image/a", text, ids, finish, None, None, seconds=0.1)


PLAIN = answer((1, 2, 3))
ERROR = '{"error":{"message":"top_k must be\\n at least 1","type":"BadRequestError"}}'


@pytest.mark.parametrize(
    ("got", "told"),
    [
        (answer((1, 2, 3)), "no change"),
        (answer((1, 2, 3), "text."), "the text goes on with '.'"),
        (answer((1, 2), finish="length"), "cut: 2 tokens instead of 3 (length)"),
        (answer((1, 2, 3, 4)), "longer: 4 tokens instead of 3 (stop)"),
        (answer((1, 9, 3), "other"), "other tokens from token 2 on: 'other' (stop)"),
        (Refusal(400, ERROR, is_json_error=True), "HTTP 400: top_k must be at least 1"),
        (Refusal(502, "Bad Gateway", is_json_error=False), "HTTP 502: Bad Gateway"),
    ],
)
def test_an_effect_is_told(got: Completion | Refusal, told: str) -> None:
    assert effect(PLAIN, got if isinstance(got, Refusal) else (got,)) == told


def test_each_of_several_answers_is_told() -> None:
    longer = answer((1, 2, 3, 4))
    told = "2 answers: no change; longer: 4 tokens instead of 3 (stop)"
    assert effect(PLAIN, (PLAIN, longer)) == told
