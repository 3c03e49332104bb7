"""Rules of recovery.*: each accepts a server that comes back, and refuses one that does not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any
from unittest import mock

import pytest
from helpers.goldens import answer

from pytest_ascend_vlm import Capability, Case, PreconditionError, ServerError
from pytest_ascend_vlm.criteria import recovery
from pytest_ascend_vlm.observation.answers import Completion, Refusal
from pytest_ascend_vlm.observation.recovery import EngineLoss, Incident, Recovery, Stall, StreamEnd
from pytest_ascend_vlm.observation.shutdown import ShutdownReport
from pytest_ascend_vlm.session.bad_requests import ImageRequests, Marked

REFERENCE = answer("one two three")
REFUSED = Refusal(400, "too long", is_json_error=True)
SILENT = Refusal(0, "timed out", is_json_error=False)


def completion(text: str, tokens: tuple[int, ...] | None = None) -> Completion:
    return Completion("image/a", text, tokens, "length", None, None, 0.1)


BEFORE = completion("one two three", (1, 2, 3, 4))
SAME, OTHER = completion("one two", (1, 2)), completion("one six", (1, 9))


def seen(after: Completion | Refusal = SAME, held: float | None = 0.0, **incident: Any) -> Recovery:
    return Recovery(Incident(**incident), BEFORE, SAME, after, held)


@pytest.mark.parametrize(
    ("reply", "told"),
    [((SAME,), "got the whole answer before"), (REFUSED, "got HTTP 400: too long before")],
)
def test_a_client_that_got_its_answer_did_not_leave(reply: Any, told: str) -> None:
    case = Case("image/a", Capability.IMAGE, "a")
    client = mock.MagicMock()
    requests = ImageRequests(mock.Mock(), mock.Mock(), client, case, case, None)
    requests.__dict__["max_model_len"] = 100
    send = client.disposable.return_value.__enter__.return_value.send
    send.return_value = reply
    with pytest.raises(PreconditionError, match=told):
        requests.leave(Marked([], "salt"))
    send.side_effect = ServerError("no answer in time")
    requests.leave(Marked([], "salt"))


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (seen(), None),
        (seen(held=None), None),
        (seen(reply=REFUSED, seconds=5.0), None),
        (seen(reply=REFUSED, seconds=5.0, meanwhile=SAME, meanwhile_seconds=2.0), None),
        (seen(completion("one two", None)), None),
        (seen(OTHER), "an image in no cache is read as before: another answer than before:"),
        (
            seen(completion("", ())),
            "an image in no cache is read as before: another answer than before:",
        ),
        (
            seen(completion("one two six", None)),
            "an image in no cache is read as before: another answer than before:",
        ),
        (seen(SILENT), "an image in no cache is answered: it got no answer: timed out"),
        (seen(held=2.0), "no request is left: the server still has 2 requests 5 s after the last"),
        (
            seen(held=math.inf),
            "no request is left: before the bad request the server told how many requests it has; "
            "now it does not",
        ),
        (seen(reply=SAME), "the bad request is refused: it was answered: 'one two'"),
        (seen(reply=SILENT), "the bad request is refused: it got no reply within 10 s: timed out"),
        (
            seen(reply=REFUSED, seconds=5.0, meanwhile=SAME, meanwhile_seconds=4.9),
            "others are answered meanwhile: a text request took 4.9 s, of the 5.0 s that the bad "
            "one took",
        ),
        (
            seen(reply=REFUSED, seconds=5.0, meanwhile=REFUSED),
            "others are answered meanwhile: HTTP 400: too long",
        ),
    ],
)
def test_a_bad_request_leaves_nothing_behind(one: Recovery, problem: str | None) -> None:
    verdict = recovery.judge_recovery(one, REFERENCE)
    assert verdict.passed is (problem is None)
    assert [detail.split("\n")[0] for detail in verdict.details] == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("health", "waited", "failed"),
    [
        (503, SAME, []),
        (None, SAME, []),
        (503, SILENT, []),
        (200, SAME, ["/health tells it"]),
        (503, OTHER, ["the image that waited is read as before"]),
        (200, SILENT, ["/health tells it", "the image that waited is answered"]),
    ],
)
def test_a_stopped_engine_shows_and_goes_on(
    health: int | None, waited: Completion | Refusal, failed: list[str]
) -> None:
    verdict = recovery.judge_stall(Stall(health, 15.0, BEFORE, waited), REFERENCE)
    assert [detail.partition(": ")[0] for detail in verdict.details] == failed


END = ShutdownReport((), None, None, 1.0, exit_code=1)
TOLD = EngineLoss(StreamEnd("EngineDeadError"), 503, END)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"health": None}, []),
        ({"report": None}, []),
        ({"stream": None}, ["the answer that was computed"]),
        ({"stream": StreamEnd(None)}, ["the answer that was computed"]),
        ({"health": 200}, ["/health tells it"]),
        ({"report": dataclasses.replace(END, exit_code=0)}, ["exit code"]),
        ({"report": dataclasses.replace(END, survivors=("pid 7",))}, ["every process ended"]),
        ({"report": ShutdownReport((), 0.0, 900.0, 1.0, 1)}, ["device memory is back"]),
    ],
)
def test_the_death_of_an_engine_is_told(changes: dict[str, Any], failed: list[str]) -> None:
    verdict = recovery.judge_loss(dataclasses.replace(TOLD, **changes))
    assert [detail.partition(": ")[0] for detail in verdict.details] == failed
