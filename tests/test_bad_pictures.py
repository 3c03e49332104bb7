"""serving.image_sizes and serving.largest_image against servers of known quality."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.replay_server import Behaviour, Defect, Refused, Request, State
from helpers.models import model_file
from helpers.outcome import Judged, Row, Serve

SIZES, LARGEST = "image_sizes", "largest_image"
TOO_LONG = Behaviour(refuse=lambda refused, _state: None if refused.kind == "too long" else refused)


def thin(request: Request) -> bool:
    return any(max(size) > 20 * min(size) for size in request.sizes)


def thin_gives_500(request: Request, _state: State) -> Refused | None:
    return Refused(500, "shape mismatch in the tower", "crash") if thin(request) else None


def thin_hangs(request: Request, _state: State) -> None:
    if thin(request):
        time.sleep(4)


def thin_kills_engine(request: Request, state: State) -> Refused | None:
    state.is_gone = thin(request)
    return thin_gives_500(request, state)


def markers_exchanged(items: list[object]) -> list[object]:
    """The prompt with the two tokens around its image exchanged."""
    return [
        {259: 260, 260: 259}.get(item, item) if isinstance(item, int) else item for item in items
    ]


def row(outcome: Any, criterion: str) -> Row:
    (found,) = (row for row in outcome.rows if row["criterion"] == criterion)
    return found


@pytest.mark.catches("serving.image_sizes")
def test_a_failure_is_shrunk_and_can_be_sent_again(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_SERVER_API_KEY", "sk-very-secret")
    url = stub(Behaviour(crash=thin_gives_500), key="sk-very-secret")
    outcome = judged(url, "-k", SIZES)
    failed = row(outcome, "serving.image_sizes")
    assert failed["status"] == "fail"
    assert re.search(r"picture of (21 x 1|1 x 21) pixels, mode RGB is wrong", failed["reason"])
    assert "tokens; got HTTP 500: " in failed["reason"]
    assert "shape mismatch in the tower" in failed["reason"]
    assert (
        "sk-very-secret" not in outcome.text + outcome.directory.joinpath("report.json").read_text()
    )
    command = shlex.split(re.search(r"while the server runs: (curl .+)", failed["reason"])[1])
    body = Path(command[-1].removeprefix("@")).read_bytes()
    assert b"sk-very-secret" not in body
    key = {"Authorization": "Bearer sk-very-secret"}
    again = httpx.post(command[1], content=body, headers=key, trust_env=False)
    assert (again.status_code, "shape mismatch" in again.text) == (500, True)


@pytest.mark.catches("serving.image_sizes")
def test_token_ids_count_and_not_only_their_number(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Behaviour(prompt=markers_exchanged)), "-k", SIZES)
    reason = row(outcome, "serving.image_sizes")["reason"]
    assert re.search(r"expected token 259 at position \d+ of the prompt; got 260", reason)


@pytest.mark.catches("serving.image_sizes")
def test_a_server_that_dies_of_a_picture_gets_no_more(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Behaviour(crash=thin_kills_engine)), "-k", SIZES)
    reason = row(outcome, "serving.image_sizes")["reason"]
    assert "picture of 500 x 19 pixels, mode RGB is wrong" in reason
    assert "got no answer: no answer from http://" in reason
    assert "as picture 2; 0 more requests" in reason


@pytest.mark.catches("serving.image_sizes")
def test_a_hang_is_a_failure_and_costs_its_budget_once(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    pass", budgets="Budgets(first_image=1.0)")
    outcome = judged(stub(Behaviour(crash=thin_hangs)), "-k", SIZES, "test_own_model.py")
    reason = row(outcome, "serving.image_sizes")["reason"]
    assert "picture of 500 x 19 pixels, mode RGB is wrong" in reason
    assert "got no answer: no answer from http://" in reason


def test_what_max_model_len_has_no_room_for_is_refused_by_a_good_server(
    stub: Serve, judged: Judged
) -> None:
    asked = ("-k", f"{SIZES} or {LARGEST}", "--vlm-examples=30")
    outcome = judged(stub(longest_prompt=400), *asked)
    assert outcome.criteria("pass") == {"serving.image_sizes", "serving.largest_image"}
    sizes = row(outcome, "serving.image_sizes")["evidence"]
    assert sizes["most_prompt_tokens"] < 400
    assert sizes["to_refuse"] > 6
    largest = row(outcome, "serving.largest_image")
    assert "limited by the 368 tokens that max_model_len leaves for a prompt" in largest["finding"]
    assert 340 < largest["evidence"]["prompt_tokens"] <= 368


@pytest.mark.catches("serving.image_sizes")
def test_a_prompt_beyond_max_model_len_that_is_answered_is_caught(
    stub: Serve, judged: Judged
) -> None:
    url = stub(TOO_LONG, longest_prompt=400)
    outcome = judged(url, "-k", SIZES, "--vlm-examples=30")
    reason = row(outcome, "serving.image_sizes")["reason"]
    assert "for the answer exceed max_model_len 400; it was answered: " in reason


@pytest.mark.catches("serving.largest_image")
def test_a_late_answer_to_the_largest_page_is_caught(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    pass", budgets="Budgets(largest_image=0.001)")
    outcome = judged(stub(), "-k", LARGEST, "test_own_model.py")
    failed = row(outcome, "serving.largest_image")
    assert failed["status"] == "fail"
    assert "within its budget: it took " in failed["reason"]
    assert "at most 0.001 s are allowed" in failed["reason"]
    assert re.match(
        r"serving\.largest_image: 1654 x 2339 pixels, \d+ prompt tokens, limited by the processor",
        failed["reason"],
    )


def test_the_number_of_pictures_is_an_option(stub: Serve, judged: Judged) -> None:
    counts = [
        row(judged(stub(), "-k", SIZES, f"--vlm-examples={count}"), "serving.image_sizes")
        for count in (1, 40)
    ]
    few, many = (one["evidence"]["pictures"] for one in counts)
    assert 20 < many - few < 40
    for typed, problem in {"0": "0 is less than 1", "many": "'many' is not a number"}.items():
        refused = judged(stub(), f"--vlm-examples={typed}")
        assert problem in refused.result.stderr.str()


def test_without_the_checkpoint_nothing_is_verified(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(), "-k", f"{SIZES} or {LARGEST}", checkpoint="full")
    assert outcome.criteria("skip") == {"serving.image_sizes", "serving.largest_image"}
    assert all(
        one["reason"].startswith("the reference's processor cannot be loaded: ")
        for one in outcome.rows
    )


def test_a_known_failure_can_name_what_it_shows(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    expected = "(ExpectedFailure('serving.image_sizes', 'known', 'issue 7', shows='larger than'),)"
    model_file(project, "    pass", expected_failures=expected)
    small = judged(stub(Defect.SMALL_PICTURES_GIVE_500.value), "-k", SIZES, "test_own_model.py")
    assert small.criteria("xfail") == {"serving.image_sizes"}
    other = judged(stub(Defect.SIDES_ARE_CUT.value), "-k", SIZES, "test_own_model.py")
    assert other.criteria("fail") == {"serving.image_sizes"}
