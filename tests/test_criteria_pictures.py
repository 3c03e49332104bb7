"""Rules about pictures of all sizes."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_ascend_vlm.criteria.pictures import (
    judge_image_sizes,
    judge_largest_page,
    reply_problem,
)
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.answers import Completion, Refusal, Usage
from pytest_ascend_vlm.observation.pictures import (
    Expected,
    LargestPage,
    LargestPageReplies,
    PictureReply,
    PictureSearch,
)
from pytest_ascend_vlm.spec.picture import Picture

PROMPT = (257, 259, 261, 261, 260, 258)
ANSWER = Completion(
    case_id="image/a",
    text="Paris",
    token_ids=(80, 258),
    finish_reason="stop",
    usage=Usage(6, 2, 8),
    top=None,
    seconds=0.5,
    prompt_token_ids=PROMPT,
)
RIGHT = Expected(PROMPT)
TOO_THIN = Expected((), "the reference's processor refuses it: too thin")
BAD_REQUEST = Refusal(400, '{"error": {}}', is_json_error=True)
CRASH = Refusal(500, "list index out of range", is_json_error=True)
LOST = Refusal(0, "no answer from http://host", is_json_error=False)
PICTURE = Picture(26, 28)


def answer(**fields: object) -> Completion:
    return dataclasses.replace(ANSWER, **fields)


@pytest.mark.parametrize(
    ("expected", "got", "problem"),
    [
        (RIGHT, ANSWER, None),
        (RIGHT, answer(prompt_token_ids=None), None),  # the length is all that is known
        (
            RIGHT,
            answer(prompt_token_ids=PROMPT[1:]),
            "expected a prompt of 6 tokens; got one of 5",
        ),
        (
            RIGHT,
            answer(prompt_token_ids=None, usage=Usage(7, 2, 9)),
            "expected a prompt of 6 tokens; got one of 7",
        ),
        (
            RIGHT,
            answer(prompt_token_ids=(257, 260, 261, 261, 259, 258)),
            "expected token 259 at position 1 of the prompt; got 260",
        ),
        (RIGHT, answer(prompt_token_ids=None, usage=None), "its prompt is unknown"),
        (RIGHT, BAD_REQUEST, "expected an answer to a prompt of 6 tokens; got HTTP 400: "),
        (RIGHT, CRASH, "got HTTP 500: list index out of range"),
        (RIGHT, LOST, "got no answer: no answer from http://host"),
        (TOO_THIN, BAD_REQUEST, None),
        (TOO_THIN, ANSWER, "refuses it: too thin; it was answered: 'Paris'"),
        (TOO_THIN, CRASH, "refuses it: too thin; HTTP 500 instead of a 4xx"),
        (TOO_THIN, LOST, "no answer instead of a 4xx"),
        (TOO_THIN, Refusal(400, "Bad Request", is_json_error=False), "the body has no JSON error"),
    ],
)
def test_the_reply_to_a_picture(
    expected: Expected, got: Completion | Refusal, problem: str | None
) -> None:
    found = reply_problem(PictureReply(PICTURE, expected, got))
    assert found == problem if problem is None else problem in (found or "")


def search(*replies: PictureReply, **fields: object) -> PictureSearch:
    right = PictureSearch(replies, smallest=None, shrinking=0, afterwards=ANSWER)
    return dataclasses.replace(right, **fields)


ANSWERED = PictureReply(PICTURE, RIGHT, ANSWER)
REFUSED = PictureReply(Picture(1, 201), TOO_THIN, BAD_REQUEST)


def test_right_replies_pass_and_are_counted() -> None:
    verdict = judge_image_sizes(search(ANSWERED, ANSWERED, REFUSED), "")
    assert verdict.passed
    assert verdict.reason == (
        "2 pictures are answered with the right prompt, of up to 6 tokens, and 1 are refused"
    )
    assert verdict.evidence == {
        "pictures": 3,
        "to_answer": 2,
        "to_refuse": 1,
        "most_prompt_tokens": 6,
    }


def test_the_smallest_wrong_reply_is_shown_with_the_command_that_sends_it_again() -> None:
    wrong = PictureReply(Picture(500, 19, "L"), RIGHT, CRASH)
    smallest = PictureReply(Picture(29, 1), RIGHT, CRASH)
    found = search(ANSWERED, wrong, smallest=smallest, shrinking=12)
    verdict = judge_image_sizes(found, "curl http://host")
    assert not verdict.passed
    assert verdict.reason == "the reply to a picture of 29 x 1 pixels, mode RGB is wrong"
    assert verdict.details == (
        "expected an answer to a prompt of 6 tokens; got HTTP 500: list index out of range",
        "found with 500 x 19 pixels, mode L, as picture 2; 12 more requests were sent to find a "
        "smaller one",
        "to send it again while the server runs: curl http://host",
    )
    assert verdict.evidence["picture"] == "29 x 1 pixels, mode RGB"


def test_a_first_picture_that_ends_the_engine_is_a_wrong_reply() -> None:
    wrong = PictureReply(PICTURE, RIGHT, LOST)
    verdict = judge_image_sizes(search(wrong, smallest=wrong, afterwards=LOST), "")
    assert not verdict.passed
    assert "got no answer" in verdict.details[0]


def test_an_engine_that_is_dead_afterwards_fails() -> None:
    verdict = judge_image_sizes(search(ANSWERED, REFUSED, afterwards=LOST), "")
    assert not verdict.passed
    assert verdict.details == ("after 2 pictures it got no answer: no answer from http://host",)


def test_without_a_picture_to_answer_there_is_no_verdict() -> None:
    with pytest.raises(PreconditionError, match=r"refuses all of 2 pictures.*too thin"):
        judge_image_sizes(search(REFUSED, REFUSED), "")


PAGE = LargestPage(1654, 2339, "the processor, which shrinks larger pages")


def page(first: Completion | Refusal, second: Completion | Refusal | None) -> LargestPageReplies:
    return LargestPageReplies(PAGE, RIGHT, first, second)


def test_a_page_that_is_answered_twice_in_the_same_way_passes() -> None:
    verdict = judge_largest_page(page(ANSWER, answer(seconds=0.25)), 0.5)
    assert verdict.passed
    assert verdict.reason == (
        "1654 x 2339 pixels, 6 prompt tokens, limited by the processor, which shrinks larger "
        "pages: all 4 checks passed"
    )
    assert verdict.evidence["seconds"] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (CRASH, None, "answered: HTTP 500: list index out of range"),
        (LOST, None, "answered: no answer: no answer from http://host"),
        (
            answer(seconds=0.6),
            ANSWER,
            "within its budget: it took 0.6 s, at most 0.5 s are allowed",
        ),
        (
            answer(prompt_token_ids=PROMPT[1:]),
            ANSWER,
            "prompt: expected a prompt of 6 tokens; got one of 5",
        ),
        (ANSWER, answer(text="Pairs"), "^ first difference, at character 3"),
        (ANSWER, answer(token_ids=(80, 81, 258)), "both: Paris"),
        (ANSWER, CRASH, "second answer: the same page, sent again, got HTTP 500"),
        (ANSWER, None, "second answer: the same page was not sent again"),
    ],
)
def test_what_is_wrong_with_the_largest_page(
    first: Completion | Refusal, second: Completion | Refusal | None, problem: str
) -> None:
    verdict = judge_largest_page(page(first, second), 0.5)
    assert not verdict.passed
    assert problem in "\n".join(verdict.details)


def test_a_model_that_no_page_fits_into_gets_no_verdict() -> None:
    seen = LargestPageReplies(PAGE, TOO_THIN, BAD_REQUEST, None)
    with pytest.raises(PreconditionError, match=r"no page can be asked: .*too thin"):
        judge_largest_page(seen, 0.5)
