"""serving.any_request: servers that a request harms, and the search for the shortest sequence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import replay_vllm
from fakes.replay_server import Behaviour, Defect
from helpers.models import model_file
from helpers.outcome import Judged, Row, Serve
from helpers.paths import REPOSITORY
from helpers.three_models import judge

from pytest_ascend_vlm.criteria.requests import judge_any_request, reply_problem
from pytest_ascend_vlm.observation.answers import Completion
from pytest_ascend_vlm.observation.exchange import Exchange, SequenceRun, SequenceSearch
from pytest_ascend_vlm.session.request_search import search, sequences
from pytest_ascend_vlm.spec.request_rows import request_names
from pytest_ascend_vlm.spec.step import STRUCTURED, Step, chat, single_steps

# Defect -> the names of the steps of the shortest sequence, one of which must be found.
CAUGHT: dict[Defect, set[str]] = {
    Defect.AN_ODD_FIELD_GIVES_500: {"min_p-negative"},
    Defect.HANGS_AFTER_A_CLIENT_LEFT: {"left-before-the-answer"},
    Defect.TWO_ANSWERS_CHANGE_THE_NEXT: {"n-two"},
    Defect.BIAS_STAYS_FOR_THE_NEXT: {"logit_bias-largest"},
}


def row(outcome: Any) -> Row:
    (found,) = outcome.rows
    return found


@pytest.mark.catches("serving.any_request")
@pytest.mark.parametrize("defect", CAUGHT, ids=lambda defect: defect.name)
def test_the_shortest_sequence_that_does_harm_is_found(
    defect: Defect, project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    pass", budgets="Budgets(first_image=4.0)")
    failed = row(judged(stub(defect.value), "-k", "any_request", "test_own_model.py"))
    assert failed["status"] == "fail"
    assert set(failed["evidence"]["steps"]) == CAUGHT[defect]


@pytest.mark.catches("serving.any_request")
@pytest.mark.parametrize(
    "defect",
    [Defect.AN_ODD_FIELD_GIVES_500, Defect.TWO_ANSWERS_CHANGE_THE_NEXT],
    ids=lambda defect: defect.name,
)
def test_the_script_shows_the_harm_again(
    defect: Defect, stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_SERVER_API_KEY", "sk-very-secret")
    outcome = judged(stub(defect.value, key="sk-very-secret"), "-k", "any_request")
    failed = row(outcome)
    path = Path(failed["reason"].partition("the script that sends it again: ")[2].split("\n")[0])
    script = path.read_text("utf-8")
    assert script == failed["evidence"]["script"]
    assert "sk-very-secret" not in outcome.text + script
    assert run(path) == (1, True)
    sound = stub(key="sk-very-secret")
    assert run(path, BASE_URL=sound) == (0, False)


def run(script: Path, **environment: str) -> tuple[int, bool]:
    """The exit code of a script, and whether it says that a reply is wrong."""
    done = subprocess.run(
        [sys.executable, "-I", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.returncode, "a reply is wrong" in done.stdout


@pytest.mark.catches("serving.any_request")
def test_a_server_of_the_suite_that_dies_is_restarted_until_the_sequence_is_short(
    project: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    model_file(project, "    pass")
    environment = {
        "PYTHONPATH": str(replay_vllm.install(tmp_path / "stub")),
        "STUB_ROOT": str(REPOSITORY),
        "STUB_DEFECTS": json.dumps({"--port": "DIES_OF_AN_IMAGE_AFTER_A_CLIENT_LEFT"}),
    }
    options = ("test_own_model.py", "--vlm-platform=cpu", "-k", "any_request")
    done, report = judge(project.path, *options, **environment)
    assert report is not None, done.stdout + done.stderr
    (failed,) = report["rows"]
    assert failed["status"] == "fail"
    assert failed["evidence"]["steps"] == ["left-before-the-answer"]
    assert "then a good request with an image got no answer: " in failed["reason"]


def test_the_page_has_the_script_as_a_program(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.AN_ODD_FIELD_GIVES_500.value), "-k", "any_request")
    page = outcome.directory.joinpath("report.html").read_text("utf-8")
    assert "raise SystemExit(replay(json.loads(" in page


def test_a_known_failure_is_not_sent(project: pytest.Pytester, stub: Serve, judged: Judged) -> None:
    one, other = (
        f"ExpectedFailure('serving.bad_input[min_p-{name}]', 'known', 'issue 7'),"
        for name in ("negative", "above-one")
    )
    url = stub(Defect.AN_ODD_FIELD_GIVES_500.value)
    model_file(project, "    pass", expected_failures=f"({one})")
    failed = row(judged(url, "-k", "any_request", "test_own_model.py"))
    assert failed["evidence"]["steps"] == ["min_p-above-one"]
    model_file(project, "    pass", expected_failures=f"({one}{other})")
    assert row(judged(url, "-k", "any_request", "test_own_model.py"))["status"] == "pass"


def test_a_good_request_is_no_bad_input() -> None:
    names = request_names()
    assert {"min_p-negative", "json-null", "bad_words-empty"} <= set(names)
    assert not {"text", "image", "streamed", "image + streamed", "left-after-1-line"} & set(names)


def test_a_request_that_a_model_file_names_has_a_row_that_must_fail(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    known = "ExpectedFailure('serving.bad_input[min_p-negative]', 'known', 'issue 7')"
    model_file(project, "    pass", expected_failures=f"({known},)")
    asked = ("-k", "bad_input and min_p", "test_own_model.py")
    assert row(judged(stub(Defect.AN_ODD_FIELD_GIVES_500.value), *asked))["status"] == "xfail"
    mended = judged(stub(), *asked)
    assert [one["status"] for one in mended.rows] == ["pass", "fail"]
    assert "is expected to fail, but passes" in mended.text


# --- replies -------------------------------------------------------------------------------------

ANSWER = json.dumps({"choices": [{"message": {"content": "Hello"}}]})
EVENT = json.dumps({"choices": [{"delta": {"content": "Hello"}}]})
UNUSUAL = EVENT.replace("Hello", "\u2028")
REFUSED = json.dumps({"error": {"message": "too long", "code": 400}})
BROKEN = json.dumps({"error": {"message": "out of kernels", "code": 500}})


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, ANSWER),
        (200, f"data: {EVENT}\n\ndata: [DONE]\n\n"),
        (200, f"data: {REFUSED}\n\ndata: [DONE]\n\n"),
        (200, f"data:{EVENT}\n\ndata:[DONE]\n\n"),
        (200, f": a comment\r\n\r\ndata: {UNUSUAL}\r\n\r\ndata: [DONE]\r\n\r\n"),
        (400, REFUSED),
        (405, '{"detail":"Method Not Allowed"}'),
        (None, ""),
    ],
)
def test_an_answer_and_a_refusal_are_right(status: int | None, text: str) -> None:
    assert reply_problem(Exchange(chat("text"), status, text)) is None


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [
        (0, "the connection broke", "no answer"),
        (500, BROKEN, "HTTP 500 instead of"),
        (307, "", "HTTP 307 instead of"),
        (404, " ", "without a message"),
        (200, "Hello", "without choices"),
        (200, '{"choices": []}', "without choices"),
        (200, f"data: {EVENT}\n\n", "does not end with"),
        (200, f"data:{EVENT}\n\n", "does not end with"),
        (200, f"data:{BROKEN}\n\ndata:[DONE]\n\n", "an error of the server"),
        (200, "data: Hello\n\ndata: [DONE]\n\n", "not a JSON object"),
        (200, f"data: {EVENT}\n\ndata: Hello\n\ndata: [DONE]\n\n", "not a JSON object"),
        (200, "data: [DONE]\n\n", "without an answer or an error"),
        (200, 'data: {"choices": []}\n\ndata: [DONE]\n\n', "without an answer or an error"),
        (200, 'data: {"error": null}\n\ndata: [DONE]\n\n', "without an answer or an error"),
        (200, f"data: {BROKEN}\n\ndata: [DONE]\n\n", "an error of the server"),
    ],
)
def test_any_other_reply_is_wrong(status: int, text: str, problem: str) -> None:
    assert problem in str(reply_problem(Exchange(chat("text"), status, text)))


def test_the_blank_of_an_event_may_be_missing(stub: Serve, judged: Judged) -> None:
    # A further line break keeps the length of the stream.
    url = stub(Behaviour(sent=lambda events: (one.replace(b" ", b"", 1) + b"\n" for one in events)))
    outcome = judged(url, "-k", "any_request or stream_adds_up")
    assert outcome.criteria("pass") == {"serving.any_request", "serving.streaming"}
    assert outcome.result.ret == 0


def test_what_a_client_that_leaves_has_read_is_not_judged() -> None:
    leaving = chat("text", "", "left-after-1-line")
    assert reply_problem(Exchange(leaving, 200, f"data: {EVENT}")) is None
    assert reply_problem(Exchange(leaving, 500, BROKEN)) is not None


# --- the search ----------------------------------------------------------------------------------


def test_the_sequences_are_the_same_in_every_run_and_have_every_step() -> None:
    found = sequences(frozenset(), 120)
    assert found == sequences(frozenset(), 120)
    sent = Counter(step.name for steps in found for step in steps)
    assert not {step.name for step in single_steps()} - sent.keys()
    assert len([name for name in sent if " + " in name]) > 20


def test_where_structured_outputs_end_the_engine_none_is_asked_for_and_it_is_told() -> None:
    sent = [step for steps in sequences(STRUCTURED, 600) for step in steps]
    asked = ('"response_format"', '"structured_outputs"', '"tool_choice"')
    assert sent
    assert not [step.name for step in sent if any(field in step.body for field in asked)]
    verdict = judge_any_request(SequenceSearch(()), None, "its engine would end")
    assert verdict.reason.endswith("not asked for, because its engine would end")


def test_the_names_of_steps_are_unique() -> None:
    (_, most), *_ = Counter(step.name for step in single_steps()).most_common()
    assert most == 1


@dataclass
class Sent:
    """Runs of a server that two steps harm if the second comes after the first.

    Attributes:
        can_restart: True if the server can be restarted.
        harmful: the names of the two steps.
    """

    can_restart: bool
    harmful: tuple[str, str]
    restarts: int = 0
    is_spoilt: bool = False
    seen: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, steps: tuple[Step, ...]) -> SequenceRun:
        names = [step.name for step in steps]
        self.seen.append(tuple(names))
        first, second = self.harmful
        if first in names and second in names[names.index(first) + 1 :]:
            self.is_spoilt = True
        return SequenceRun(tuple(Exchange(step, 200) for step in steps), ANY, int(self.is_spoilt))

    def harm(self, run: SequenceRun) -> str | None:
        return "harm" if run.health else None

    def is_sound(self) -> bool:
        return not self.is_spoilt

    def restart(self) -> bool:
        self.restarts += 1
        self.is_spoilt = not self.can_restart
        return self.can_restart


ANY = Completion("canary", "Hello", (1,), "stop", None, None, 0.1)
PAIR = ("decompression-bomb", "image-of-one-pixel")


def shortest(runs: Sent, known: frozenset[str] = frozenset()) -> list[str]:
    found = search(runs, known, 60)  # type: ignore[arg-type]
    assert found.shortest is not None
    return [step.name for step in found.shortest.steps]


def test_a_pair_is_found_with_two_restarts_and_no_more() -> None:
    runs = Sent(True, PAIR)
    found = search(runs, frozenset(), 60)  # type: ignore[arg-type]
    assert steps_of(found) == PAIR
    assert (runs.restarts, runs.is_spoilt) == (2, False)


def test_a_server_that_cannot_be_restarted_is_asked_no_more() -> None:
    runs = Sent(False, PAIR)
    found = search(runs, frozenset(), 60)  # type: ignore[arg-type]
    assert set(PAIR) < set(steps_of(found))
    assert (found.shortening, found.needs_restart) == (0, True)
    assert runs.seen[-1] == steps_of(found)


def steps_of(found: SequenceSearch) -> tuple[str, ...]:
    assert found.shortest is not None
    return tuple(step.name for step in found.shortest.steps)


def test_the_plainest_combination_comes_first() -> None:
    combined = chat("image", "n-two", "streamed")
    assert combined.name == "image + n-two + streamed"
    names = [one.name for one in combined.plainer]
    assert names[0] == "text"
    assert set(names[1:4]) == {"image", "n-two", "streamed"}
    assert set(names[4:]) == {"image + n-two", "image + streamed", "n-two + streamed"}
