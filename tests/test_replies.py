"""The pieces of a stream, joined to answers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_ascend_vlm.engines.replies import StreamedAnswers
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Usage


def piece(text: str, finish: str | None = None, **index: Any) -> SimpleNamespace:
    delta = SimpleNamespace(content=text, tool_calls=None)
    return SimpleNamespace(delta=delta, finish_reason=finish, **index)


def joined(asked: int, *pieces: SimpleNamespace) -> list[str]:
    answers = StreamedAnswers(asked)
    for number, one in enumerate(pieces):
        answers.add(one, float(number))
    return [one.text for one in answers.completions("text/a", None, 9.0)]


@pytest.mark.parametrize(
    ("asked", "indexes", "texts"),
    [
        (1, (0, 0, 0, 0), ["abcd"]),
        (1, (0, 1, None, "x"), ["abcd"]),
        (2, (0, 1, 0, 1), ["ac", "bd"]),
        (2, (1, 0, 0, 1), ["bc", "ad"]),
        (2, (0, 0, 0, 0), ["abcd"]),
        (2, (1, 1, 1, 1), ["abcd"]),
        (2, (1, 2, 1, 2), ["ac", "bd"]),
        # No client knows which answer they belong to.
        (2, (None, 1, "1", True), ["acd", "b"]),
        (2, (), [""]),
    ],
)
def test_pieces_are_joined_by_their_index(
    asked: int, indexes: Sequence[Any], texts: Sequence[str]
) -> None:
    pieces = [piece(text, index=index) for text, index in zip("abcd", indexes, strict=False)]
    assert joined(asked, *pieces) == texts


def test_a_piece_may_lack_an_index() -> None:
    assert joined(2, piece("a"), piece("b", index=1)) == ["a", "b"]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_stream_whose_text_is_elsewhere_is_an_error_of_the_set_up(field: str) -> None:
    delta = SimpleNamespace(content=None, tool_calls=None, **{field: "\n"})
    one = SimpleNamespace(delta=delta, finish_reason=None)
    assert joined(1, one, piece("a")) == ["a"]
    setattr(delta, field, "The user asks")
    with pytest.raises(PreconditionError, match=f"the field {field} of .*--reasoning-parser"):
        joined(1, one)


def test_each_answer_has_its_own_end_and_times() -> None:
    answers = StreamedAnswers(2)
    answers.add(piece("", index=0), 1.0)
    answers.add(piece("b", index=1), 2.0)
    answers.add(piece("a", index=0), 3.0)
    answers.add(piece("", finish="stop", index=1), 4.0)
    answers.add(piece("", finish="length", index=0), 5.0)
    first, second = answers.completions("text/a", None, 9.0)
    assert (first.finish_reason, second.finish_reason) == ("length", "stop")
    assert (first.first_token_seconds, second.first_token_seconds) == (3.0, 2.0)
    assert first.arrivals == (1.0, 3.0, 5.0)
    assert (first.seconds, second.seconds) == (9.0, 9.0)


@pytest.mark.parametrize(
    ("counted", "ids"), [(3, (7, 8, 9)), (4, None), (None, None)], ids=["all", "some", "unknown"]
)
def test_the_tokens_of_a_stream_are_known_if_none_is_left_out(
    counted: int | None, ids: tuple[int, ...] | None
) -> None:
    answers = StreamedAnswers(1)
    answers.add(piece("", token_ids=None), 1.0)
    answers.add(piece("ab", token_ids=[7, 8]), 2.0)
    answers.add(piece("", finish="stop", token_ids=[9]), 3.0)
    usage = None if counted is None else Usage(5, counted, 5 + counted)
    (answer,) = answers.completions("text/a", usage, 9.0)
    assert answer.token_ids == ids
