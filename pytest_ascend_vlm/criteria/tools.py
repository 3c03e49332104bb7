"""Rules of parameters.tools: what `tools` and `tool_choice` do to an answer.

The request has two functions whose only argument is one of two words. The model need not know when
to call them: a choice that names a function, and `required`, leave the model only tokens of a call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..observation.answers import Completion, ToolCall
from .parameters import Fields, Parameter, Problem, always, changed, loaded, told_calls

_WORDS = {"switch_light": ("on", "off"), "give_answer": ("yes", "no")}
_ARGUMENT = "word"
_NAMED = "give_answer"  # not the first, which a server may take by itself
# A small model may repeat spaces between the parts of a call for ever. The penalty ends that; for
# vLLM 0.23, whose grammar allows every kind of space, not within 256 tokens.
_CALL: Fields = {"max_tokens": 1024, "frequency_penalty": 2.0}


def _tool(name: str, words: Collection[str]) -> Mapping[str, Any]:
    parameters = {
        "type": "object",
        "properties": {_ARGUMENT: {"enum": list(words)}},
        "required": [_ARGUMENT],
        "additionalProperties": False,
    }
    # vLLM from 0.26 on keeps to the schema only if the function is strict.
    function = {"name": name, "parameters": parameters, "strict": True}
    return {"type": "function", "function": function}


def _fields(choice: object, others: Fields | None = None) -> Fields:
    tools = [_tool(name, words) for name, words in _WORDS.items()]
    return {"tools": tools, "tool_choice": choice, **(others or {})}


def _calls(names: Collection[str]) -> Problem:
    """The answer calls one function, which is one of some."""

    def problem(_: Completion, got: Completion) -> str | None:
        if len(got.tool_calls) == 1:
            return _call_problem(got.tool_calls[0], names)
        return (
            f"the answer calls {told_calls(got)} instead of one of {sorted(names)}; its text is "
            f"{got.text!r} ({got.finish_reason!r})"
        )

    return problem


def _call_problem(call: ToolCall, names: Collection[str]) -> str | None:
    if call.name not in names:
        return f"the answer calls {call}, not one of {sorted(names)}"
    right = [{_ARGUMENT: word} for word in _WORDS[call.name]]
    is_right = loaded(call.arguments) in right
    return None if is_right else f"the arguments of {call} are none of {right}"


def _answers(plain: Completion, got: Completion) -> str | None:
    """The answer is a text.

    It is the plain one if the prompt is: with most chat templates the functions are in the prompt.
    """
    if got.tool_calls:
        return f"the answer calls {told_calls(got)}"
    prompt = got.prompt_token_ids
    is_same_prompt = prompt is not None and prompt == plain.prompt_token_ids
    return changed(plain, got) if is_same_prompt else None


def _may_call(plain: Completion, got: Completion) -> str | None:
    """The answer is a text, or calls functions of the request with an object as argument."""
    if not got.tool_calls:
        return _answers(plain, got)
    for call in got.tool_calls:
        if call.name not in _WORDS or not isinstance(loaded(call.arguments), dict):
            return f"the answer calls {call}, which is no function of the request with an object"
    return None


TOOLS: Mapping[str, Parameter] = {
    "named": Parameter(
        always(_fields({"type": "function", "function": {"name": _NAMED}}, _CALL)),
        _calls({_NAMED}),
    ),
    "required": Parameter(
        always(_fields("required", {**_CALL, "parallel_tool_calls": False})), _calls(_WORDS)
    ),
    "none": Parameter(always(_fields("none")), _answers),
    "auto": Parameter(always(_fields("auto")), _may_call),
}
"""Values of `tool_choice`. A model need not call a function for `auto`."""
