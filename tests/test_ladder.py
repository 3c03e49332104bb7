"""ladder.concurrent: which numbers of requests run, and what is told of answers that differ."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import pytest
from fakes.replay_server import CROWD, Behaviour, Defect, Stub
from helpers.models import model_file
from helpers.outcome import Judged, Outcome, Serve

from pytest_ascend_vlm.criteria.determinism import ForcedErrors, with_errors, with_running
from pytest_ascend_vlm.criteria.verdict import at_least
from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.observation.answers import Completion
from pytest_ascend_vlm.session.crowds import Crowds
from pytest_ascend_vlm.spec.thresholds import BATCH


def on_the_ladder(judged: Judged, url: str, only: str) -> Outcome:
    return judged(url, "-m", "ladder", "-k", f"in_a_crowd and ({only})")


def test_the_ladder_is_judged_only_where_it_is_named(judged: Judged, stub: Serve) -> None:
    rows = judged(stub(), "-k", "models or in_a_crowd").rows
    assert {row["criterion"] for row in rows} == {"serving.models"}


def test_a_sound_server_answers_a_crowd(judged: Judged, stub: Serve) -> None:
    outcome = on_the_ladder(judged, stub(), "[17] or [24-spread]")
    assert {row["case"]: row["status"] for row in outcome.rows} == {
        "17": "pass",
        "24-spread": "pass",
    }
    assert {row["measured"] for row in outcome.rows} == {1.0}


@pytest.mark.catches("ladder.concurrent")
def test_a_server_that_only_a_crowd_confuses_is_noticed(judged: Judged, stub: Serve) -> None:
    url = stub(Defect.A_CROWD_CHANGES_ANSWERS.value)
    few = judged(url, "-k", "concurrent_runs and [12]")
    assert few.criteria("pass") == {"determinism.concurrent"}
    outcome = on_the_ladder(judged, url, "[24]")
    assert outcome.criteria("fail") == {"ladder.concurrent"}
    (row,) = outcome.rows
    assert "R = 1.00, K = 1.00 one after another; R = 1.00, K = 1.00 at one" in row["reason"]
    forced = row["evidence"]["forced"]
    assert forced["together"] == forced["alone"]
    assert 2 <= forced["count"] <= BATCH
    assert forced["asked_together"] == 24
    some = f"one pass over {forced['count']} requests at one moment is right"
    assert f"{some}; 24 together were not forced" in row["reason"]
    assert "one pass is right" not in row["reason"]


def errors(ratio: float, count: int = 2) -> Any:
    value = SimpleNamespace(value=ratio)
    return SimpleNamespace(error_ratio=value, kl_ratio=value, comparisons=("one",) * count)


FAILED = at_least(0.5, 1.0, "rate", "half")


@pytest.mark.parametrize(
    ("alone", "together", "asked", "told"),
    [
        (1.0, 1.2, 2, "one pass is right: look at"),
        (1.0, 1.2, 3, "one pass over 2 requests at one moment is right; 3 together were not"),
        (1.0, 9.0, 3, "one pass over several requests is wrong too"),
        (8.0, 9.0, 2, "one pass is wrong even over a single request"),
    ],
)
def test_forced_answers_tell_what_is_wrong(
    alone: float, together: float, asked: int, told: str
) -> None:
    verdict = with_errors(FAILED, ForcedErrors(errors(alone), errors(together)), asked)
    numbers, hint = verdict.details
    assert f"2 of the differing cases: R = {alone:.2f}, K = {alone:.2f} one after" in numbers
    assert f"R = {together:.2f}, K = {together:.2f} at one moment" in numbers
    assert told in hint
    assert not verdict.passed


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (1.0, "one pass over a single request is right; 17 together were not forced"),
        (8.0, "one pass is wrong even over a single request: see numerics.logits"),
    ],
)
def test_a_single_forced_answer_tells_nothing_of_several(ratio: float, told: str) -> None:
    verdict = with_errors(FAILED, ForcedErrors(errors(ratio, 1), None), 17)
    assert verdict.details[1] == told
    assert "at one moment" not in " ".join(verdict.details)
    assert verdict.evidence["forced"]["together"] is None


def test_a_single_case_is_not_forced_together() -> None:
    case = SimpleNamespace(id="text/one")
    # Without `together`: a second computation of one case would be the first again.
    crowds = Crowds(Mock(), [case], Mock(spec=["__call__"]), Mock(), Mock())  # type: ignore[list-item]
    with patch.object(Crowds, "_error", return_value=errors(1.0, 1)):
        assert crowds.errors(["text/one"]).together is None


def test_the_most_requests_that_ran_at_once_are_told(
    judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though 17 are sent, a server may compute fewer in one step, and let the others wait."""
    looked, ask = threading.Event(), Client.ask_together

    def metrics_page(_: Stub) -> str:
        looked.set()
        return "vllm:num_requests_running 5\nvllm:num_requests_waiting 12\n"

    def ask_until_looked(*arguments: Any, **named: Any) -> tuple[Completion, ...]:
        answers = ask(*arguments, **named)
        assert looked.wait(60)
        return answers

    monkeypatch.setattr(Stub, "metrics", metrics_page)
    monkeypatch.setattr(Client, "ask_together", ask_until_looked)
    (row,) = on_the_ladder(judged, stub(), "[17]").rows
    assert row["status"] == "pass"
    assert row["finding"].endswith("; at most 5 were seen to run at once")
    assert row["evidence"]["running"] == 5


def test_nothing_is_said_of_what_a_server_does_not_tell() -> None:
    verdict = with_running(FAILED, None)
    assert verdict.reason == FAILED.reason
    assert verdict.evidence["running"] is None


def test_an_unknown_error_of_forced_answers_changes_no_verdict(judged: Judged, stub: Serve) -> None:
    crowd, silent = Defect.A_CROWD_CHANGES_ANSWERS.value, Defect.PROMPT_LOGPROBS_ARE_DROPPED.value
    both = Behaviour(answered=crowd.answered, reply=silent.reply)
    outcome = on_the_ladder(judged, stub(both), "[24]")
    (row,) = outcome.rows
    assert row["status"] == "fail"
    assert "their forced answers are not known" in row["reason"]


def test_a_model_file_shortens_the_ladder(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    assert CROWD < 17
    model_file(
        project,
        "",
        serve="{'limit_mm_per_prompt': {'image': 1, 'video': 0}, 'max_num_seqs': 64}",
        thresholds="Thresholds(at_once=20, because='a host of two cores')",
    )
    outcome = judged(stub(), "-m", "ladder", "-k", "TestOwn")
    reasons = {row["case"]: row["reason"] for row in outcome.rows if row["status"] == "na"}
    assert {row["case"] for row in outcome.rows if row["status"] == "pass"} == {"17", "17-spread"}
    assert "no more than 20 at once: a host of two cores" in reasons["24"]


def test_no_more_requests_are_sent_than_the_server_computes_at_once(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    model_file(
        project, "", serve="{'limit_mm_per_prompt': {'image': 1, 'video': 0}, 'max_num_seqs': 17}"
    )
    outcome = judged(stub(), "-m", "ladder", "-k", "TestOwn")
    assert {row["case"] for row in outcome.rows if row["status"] == "pass"} == {"17", "17-spread"}
    na = [row["reason"] for row in outcome.rows if row["status"] == "na"]
    assert len(na) == 16
    assert all("max_num_seqs=17" in reason for reason in na)
