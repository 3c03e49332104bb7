"""Criterion parameters.tools: its rules on made-up answers, and servers of known quality."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.replay_server import (
    Behaviour,
    Defect,
    Knowledge,
    Refused,
    Request,
    State,
)
from helpers.outcome import Judged, Serve
from helpers.qwen3_vl import knowledge_of_tiny, with_model_file

from pytest_ascend_vlm.criteria.parameters import judge_parameter
from pytest_ascend_vlm.criteria.tools import TOOLS
from pytest_ascend_vlm.engines.replies import joined_calls
from pytest_ascend_vlm.observation.answers import Completion, ToolCall
from pytest_ascend_vlm.observation.parameters import Trial, Trials

END = 2


def answer(*calls: ToolCall, text: str = "", **fields: Any) -> Completion:
    tokens = (*map(ord, text), END)
    made = Completion("text/open", text, tokens, "stop", None, None, 0.1, tool_calls=calls)
    return dataclasses.replace(made, **fields)


def call(name: str = "give_answer", arguments: str = '{"word": "no"}') -> ToolCall:
    return ToolCall(name, arguments)


PLAIN = answer(text="A poem", prompt_token_ids=(1, 2))


def verdict_on(choice: str, unstreamed: Completion, streamed: Completion | None = None) -> Any:
    trial = Trial({}, PLAIN, (unstreamed,), (streamed or unstreamed,))
    return judge_parameter(TOOLS[choice], Trials((trial,), {}, may_lack=False))


@pytest.mark.parametrize(
    ("choice", "got"),
    [
        ("named", answer(call())),
        ("named", answer(call(arguments='{"word":"yes"}'))),
        ("required", answer(call())),
        ("required", answer(call("switch_light", '{"word": "off"}'))),
        ("none", answer(text="A poem", prompt_token_ids=(1, 2))),
        ("none", answer(text="Another one", prompt_token_ids=(1, 7, 2))),
        ("none", answer(text="Another one", prompt_token_ids=None)),
        ("auto", answer(text="A poem", prompt_token_ids=(1, 2))),
        ("auto", answer(call("switch_light", "{}"), call())),
    ],
)
def test_a_right_answer_passes(choice: str, got: Completion) -> None:
    verdict = verdict_on(choice, got)
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize(
    ("choice", "got", "told"),
    [
        ("named", answer(text="A poem"), "calls no function instead of one of ['give_answer']"),
        ("named", answer(call("switch_light", '{"word": "on"}')), "not one of ['give_answer']"),
        ("named", answer(call(arguments='{"word": "maybe"}')), "are none of"),
        ("named", answer(call(arguments='{"word": "no"')), "are none of"),
        ("named", answer(call(), call()), "instead of one of"),
        ("required", answer(text="A poem"), "calls no function"),
        ("required", answer(call("unknown")), "not one of"),
        ("required", answer(call("switch_light", '{"word": "no"}')), "are none of"),
        ("none", answer(call()), 'calls give_answer({"word": "no"})'),
        ("none", answer(text="Another", prompt_token_ids=(1, 2)), "the answer changes"),
        ("auto", answer(text="Another", prompt_token_ids=(1, 2)), "the answer changes"),
        ("auto", answer(call("unknown", "{}")), "no function of the request"),
        ("auto", answer(call(arguments="no object")), "no function of the request"),
        ("auto", answer(call(arguments=100_000 * "[")), "no function of the request"),
    ],
)
def test_a_wrong_answer_fails(choice: str, got: Completion, told: str) -> None:
    assert told in (TOOLS[choice].problem(PLAIN, got) or "")
    assert not verdict_on(choice, got).passed


@pytest.mark.parametrize(
    ("streamed", "is_right"),
    [
        (answer(call(arguments='{"word":"no"}')), True),
        (answer(call(arguments='{"word": "no"')), False),
        (answer(call(arguments='{"word": "yes"}')), False),
        (answer(call("give_answergive_answer")), False),
        (answer(), False),
        (answer(call(), text="{"), False),
        (answer(call(), finish_reason="length"), False),
    ],
)
def test_a_streamed_call_is_the_same(streamed: Completion, is_right: bool) -> None:
    assert verdict_on("named", answer(call()), streamed).passed is is_right


def piece(index: int, **function: str) -> SimpleNamespace:
    return SimpleNamespace(index=index, function=SimpleNamespace(**function))


def test_the_pieces_of_a_stream_are_put_together_by_their_index() -> None:
    pieces = [
        piece(0, name="one", arguments=""),
        piece(1, name="two"),
        piece(0, arguments='{"a"'),
        piece(1, arguments="{"),
        SimpleNamespace(index=1, function=None),
        piece(0, arguments=": 1}"),
        piece(1, arguments="}"),
    ]
    assert joined_calls(pieces) == (ToolCall("one", '{"a": 1}'), ToolCall("two", "{}"))


def test_pieces_without_an_index_are_calls_of_their_own() -> None:
    named, more = piece(0, name="one"), piece(0, arguments="{}")
    del named.index, more.index
    assert joined_calls([named, more]) == (ToolCall("one", ""), ToolCall("", "{}"))


def test_a_call_of_an_odd_form_is_no_error() -> None:
    odd = SimpleNamespace(index=0, function=SimpleNamespace(name="one", arguments={"a": 1}))
    assert joined_calls([odd, "no call"]) == (ToolCall("one", "{'a': 1}"), ToolCall("", ""))


def test_control_characters_of_a_call_are_shown_as_escapes() -> None:
    assert str(call("\x1b[31m答", "\0\u202e\n")) == "\\x1b[31m答(\\x00\\u202e\\n)"


# --- servers -------------------------------------------------------------------------------------

ASKED = "TestQwen3VL8B and call_functions"
# It takes the penalty that is sent beside; the server of these tests refuses it otherwise.
SOUND = Defect.DROPS_PARAMETERS.value


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """The answers of the server: the goldens of the tiny Qwen3-VL."""
    return knowledge_of_tiny()


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with Qwen3-VL's model file."""
    return with_model_file(pytester)


def dropped(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    """The request without its tools."""
    return dataclasses.replace(request, call=None)


def first(request: Request, _knowledge: Knowledge, _state: State) -> Request:
    """The request for any function, whatever it names."""
    other = ("switch_light", json.dumps({"word": "on"}))
    return dataclasses.replace(request, call=request.call and other)


def doubled(arguments: str) -> list[str]:
    """The pieces of a stream, the first of which comes twice."""
    pieces = arguments.split(" ")
    return [
        pieces[0],
        *(f" {piece}" for piece in pieces[1:]),
        *([pieces[0]] if "{" in arguments else []),
    ]


def test_calls_of_a_sound_server_are_right(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(SOUND, image_limit=10), "-k", ASKED)
    assert {row["case"]: row["status"] for row in outcome.rows} == dict.fromkeys(TOOLS, "pass")


def test_a_server_that_refuses_what_is_sent_beside_is_not_judged(
    stub: Serve, judged: Judged
) -> None:
    outcome = judged(stub(image_limit=10), "-k", ASKED)
    statuses = {row["case"]: row["status"] for row in outcome.rows}
    assert statuses == {"named": "na", "required": "na", "none": "pass", "auto": "pass"}


def refuses_calls(request: Request, _state: State) -> Refused | None:
    """What vLLM without a parser of tool calls does."""
    return Refused(400, "needs --tool-call-parser to be set", "tools") if request.call else None


@pytest.mark.catches("parameters.tools")
def test_a_server_without_the_declared_parser_fails(stub: Serve, judged: Judged) -> None:
    outcome = judged(
        stub(dataclasses.replace(SOUND, crash=refuses_calls), image_limit=10), "-k", ASKED
    )
    statuses = {row["case"]: row["status"] for row in outcome.rows}
    assert statuses == {"named": "fail", "required": "fail", "none": "pass", "auto": "pass"}


@pytest.mark.catches("parameters.tools")
@pytest.mark.parametrize(
    ("behaviour", "fails"),
    [
        (dataclasses.replace(SOUND, seen=dropped), {"named", "required"}),
        (dataclasses.replace(SOUND, seen=first), {"named"}),
        (dataclasses.replace(SOUND, deltas=doubled), {"named", "required"}),
    ],
    ids=["tools are dropped", "another function is called", "streamed arguments are broken"],
)
def test_wrong_calls_are_noticed(
    behaviour: Behaviour, fails: set[str], stub: Serve, judged: Judged
) -> None:
    outcome = judged(stub(behaviour, image_limit=10), "-k", ASKED)
    assert {row["case"] for row in outcome.rows if row["status"] == "fail"} == fails
    assert {row["case"] for row in outcome.rows if row["status"] == "pass"} == set(TOOLS) - fails
