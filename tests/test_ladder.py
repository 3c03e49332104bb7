"""ladder.concurrent: which numbers of requests run, and what is told of answers that differ."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fakes.replay_server import CROWD, Behaviour, Defect
from helpers.models import model_file
from helpers.outcome import Judged, Outcome, Serve

from pytest_ascend_vlm.criteria.determinism import with_errors
from pytest_ascend_vlm.criteria.verdict import at_least


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
    assert "one pass is right" in row["reason"]
    assert row["evidence"]["forced"]["together"] == row["evidence"]["forced"]["alone"]


def errors(ratio: float) -> Any:
    value = SimpleNamespace(value=ratio)
    return SimpleNamespace(error_ratio=value, kl_ratio=value, comparisons=("one", "two"))


@pytest.mark.parametrize(
    ("alone", "together", "told"),
    [
        (1.0, 1.2, "one pass is right: look at"),
        (1.0, 9.0, "one pass over several requests is wrong too"),
        (8.0, 9.0, "one pass is wrong even over a single request"),
    ],
)
def test_forced_answers_tell_what_is_wrong(alone: float, together: float, told: str) -> None:
    verdict = with_errors(at_least(0.5, 1.0, "rate", "half"), (errors(alone), errors(together)))
    numbers, hint = verdict.details
    assert f"2 of the differing cases: R = {alone:.2f}, K = {alone:.2f} one after" in numbers
    assert f"R = {together:.2f}, K = {together:.2f} at one moment" in numbers
    assert told in hint
    assert not verdict.passed


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
