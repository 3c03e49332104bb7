"""Rules of serving.any_request: no request harms the service."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PreconditionError
from ..observation.answers import Completion, Reference, Refusal
from ..observation.exchange import Exchange, SequenceRun, SequenceSearch
from ..spec.step import CHAT, COMPLETIONS, Step
from .determinism import judge_load
from .verdict import Verdict, at_most, checklist

_SHOWN = 160
_EVENT = "data:"  # one blank behind it is optional


@dataclass(frozen=True)
class Shortest:
    """The shortest sequence that did harm.

    Attributes:
        steps: its requests.
        problem: the harm.
        script: a program that sends it again.
        script_path: the path of a file with this program.
    """

    steps: tuple[Step, ...]
    problem: str
    script: str
    script_path: str


def harm(
    run: SequenceRun, before: SequenceRun, reference_of: Callable[[str], Reference]
) -> str | None:
    """The first problem of a sequence: a wrong reply, or a server that is not sound after it.

    Args:
        run: the sequence.
        before: the state of the server before all requests.
        reference_of: returns the reference of a case id, whose preferences tell a near-tie.

    Raises:
        PreconditionError: the server did not answer the canary before all requests.
    """
    if isinstance(before.canary, Refusal):
        raise PreconditionError(f"the server is not sound before any odd request: {before.canary}")
    wrong = [
        f"{exchange.step.name}: {problem}"
        for exchange in run.exchanges
        if (problem := reply_problem(exchange)) is not None
    ]
    if isinstance(run.canary, Refusal):
        return "; ".join([*wrong, f"then a good request with an image got {run.canary}"])
    if wrong:
        return "; ".join([*wrong, "then a good request with an image was answered"])
    same = judge_load({run.canary.case_id: before.canary}, [run.canary], reference_of)
    if not same.passed:
        details = "\n".join(same.details)
        return f"the answer to a good request with an image has changed:\n{details}"
    if run.health != before.health:
        return f"/health returned {run.health} after it, and {before.health} before (0 is no reply)"
    return None


def reply_problem(exchange: Exchange) -> str | None:
    """The problem with the reply to any request, or None.

    A reply is right if it is a well-formed answer, or a 4xx with a message.
    """
    status, text = exchange.status, exchange.text
    if status is None:
        return None
    if status == 0:
        return f"no answer: {text}"
    if not (200 <= status < 300 or 400 <= status < 500):
        return f"HTTP {status} instead of an answer or a 4xx: {_beginning(text)}"
    if exchange.step.leaves_after is not None:
        return None
    if status >= 400:
        return None if text.strip() else f"HTTP {status} without a message"
    return _answer_problem(text) if exchange.step.path in {CHAT, COMPLETIONS} else None


def judge_odd(exchange: Exchange, afterwards: Completion | Refusal) -> Verdict:
    """An odd request gets an answer or a 4xx, and the next good request is answered.

    Args:
        exchange: the odd request and the reply to it.
        afterwards: the reply to a good request that was sent after it.
    """
    refused = f"it got {afterwards}" if isinstance(afterwards, Refusal) else None
    return checklist(
        {exchange.step.name: reply_problem(exchange), "the next good request": refused}
    )


def judge_any_request(
    found: SequenceSearch, shortest: Shortest | None, unstructured: str | None = None
) -> Verdict:
    """Each sequence of requests got right replies, and the server was sound after it.

    Args:
        found: the sequences.
        shortest: the shortest sequence that did harm; None if none did.
        unstructured: the reason why requests for structured outputs were left out, or None.
    """
    evidence = {
        "sequences": len(found.runs),
        "requests": sum(len(run.exchanges) for run in found.runs),
    }
    if shortest is None:
        reason = f"{evidence['requests']} requests in {evidence['sequences']} sequences did no harm"
        if unstructured:
            reason = f"{reason}; structured outputs were not asked for, because {unstructured}"
        return at_most(0, 0, "harmful sequences", reason, evidence=evidence)
    details = (
        shortest.problem,
        f"found with {_names(found.runs[-1].steps)}, as sequence {len(found.runs)}; "
        f"{found.shortening} more sequences were sent to find a shorter one",
        "the search ended because the server has to be restarted" if found.needs_restart else "",
        f"the script that sends it again: {shortest.script_path}",
    )
    told = {"steps": [step.name for step in shortest.steps], "script": shortest.script}
    return at_most(
        1,
        0,
        "harmful sequences",
        f"this sequence of requests does harm: {_names(shortest.steps)}",
        tuple(filter(None, details)),
        {**evidence, **told},
    )


def _names(steps: Sequence[Step]) -> str:
    return ", then ".join(step.name for step in steps)


def _answer_problem(text: str) -> str | None:
    # A text may contain other line breaks than the one that ends an event.
    lines = text.split("\n")
    if events := [line.removeprefix(_EVENT).strip() for line in lines if line.startswith(_EVENT)]:
        return _stream_problem(events)
    body = _parsed(text)
    if isinstance(body, dict) and body.get("choices"):
        return None
    return f"an answer without choices: {_beginning(text)}"


def _stream_problem(events: Sequence[str]) -> str | None:
    if events[-1] != "[DONE]":
        return f"a stream that does not end with [DONE]: {_beginning(events[-1])}"
    parsed = [_parsed(event) for event in events[:-1]]
    if not all(isinstance(event, dict) for event in parsed):
        return "a stream with an event that is not a JSON object"
    if not any(event.get("choices") or event.get("error") for event in parsed):
        return "a stream without an answer or an error"
    for event in parsed:
        error = event.get("error")
        if isinstance(error, dict) and not _is_client_error(error):
            return f"a stream with an error of the server: {_beginning(json.dumps(error))}"
    return None


def _is_client_error(error: dict[str, Any]) -> bool:
    code = error.get("code")
    return isinstance(code, int) and 400 <= code < 500


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _beginning(text: str) -> str:
    return repr(text[:_SHOWN])
