"""Rules of serving.*: the endpoint conforms to the OpenAI API."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ..errors import PreconditionError
from ..observation.answers import (
    TOKEN_COUNTS,
    Completion,
    OwnEntry,
    Refusal,
    TopLogprobs,
    Usage,
)
from ..observation.streams import Stream
from ..spec.case import Sampling
from ..spec.thresholds import STREAM_LATENESS, STREAM_LOGPROBS
from .divergence import first_difference
from .evidence import answer_facts
from .generation import list_difference
from .text import side_by_side
from .verdict import Verdict, at_most, checklist

_ROUNDED = 0.01
"""Difference of two numbers of one token that a rounding on their way explains."""


def judge_start(
    seconds: Mapping[str, float], budgets: Mapping[str, float], memory_mib: float | None
) -> Verdict:
    """Every start phase took at most its budget. The verdict has the largest share of a budget.

    Args:
        seconds: phase -> measured seconds.
        budgets: phase -> maximum seconds.
        memory_mib: device memory of the started server; None if the platform does not report it.
    """
    shares = {phase: taken / budgets[phase] for phase, taken in seconds.items()}
    worst = max(shares, key=lambda phase: shares[phase])
    details = tuple(
        f"{phase}: {taken:.1f} s of {budgets[phase]:.0f} s" for phase, taken in seconds.items()
    )
    evidence = {
        "phases_seconds": {phase: round(taken, 2) for phase, taken in seconds.items()},
        "memory_mib": memory_mib,
    }
    reason = f"ready after {sum(seconds.values()):.1f} s; closest to its budget: {worst}"
    return at_most(shares[worst], 1.0, "of budget", reason, details, evidence)


def judge_models(listed: Sequence[str] | Refusal, served_name: str) -> Verdict:
    """`/v1/models` returns 200 and lists the served name."""
    if isinstance(listed, Refusal):
        return checklist({"/v1/models answers": str(listed)})
    missing = None if served_name in listed else f"{served_name!r} is not among {list(listed)}"
    return checklist({"/v1/models answers": None, "served name listed": missing})


def judge_answer(answer: Completion | Refusal) -> Verdict:
    """The reply is 200 and has a finish reason, consistent usage and matching log-probabilities.

    Args:
        answer: the answer to a greedy request.
    """
    return checklist(_answer_checks(answer), _answer_evidence(answer))


def judge_prompt_text(
    replies: Mapping[str, Completion | Refusal], text: str, decode: Callable[[Sequence[int]], str]
) -> Verdict:
    """Each prompt contains a text as it was sent.

    Args:
        replies: kind of the request -> the reply, with its prompt's tokens.
        text: the text that was sent.
        decode: returns the text of tokens.
    """
    checks: dict[str, str | None] = {}
    for kind, reply in replies.items():
        if isinstance(reply, Refusal):
            checks[kind] = str(reply)
        else:
            checks[kind] = _text_problem(text, decode(reply.prompt_token_ids or ()))
    return checklist(checks)


def _text_problem(text: str, prompt: str) -> str | None:
    """The lines of a text that a prompt does not contain, or None."""
    if text in prompt:
        return None
    lost = [line for line in text.split("\n") if line not in prompt]
    end = prompt[-2 * len(text) :]
    if not lost:
        return f"every line is in the prompt, but not the line breaks; the prompt ends with {end!r}"
    return f"the prompt lacks {', '.join(map(repr, lost))}; it ends with {end!r}"


def judge_media(answer: Completion | Refusal, text_tokens: int | None, medium: str) -> Verdict:
    """The checks of `judge_answer`, and the image or video added tokens to the prompt.

    Args:
        answer: the answer to a greedy request with an image or a video.
        text_tokens: length of the prompt without it; None if unknown, and then the check fails.
        medium: "image" or "video".
    """
    tokens = answer.prompt_tokens if isinstance(answer, Completion) else None
    if tokens is None or text_tokens is None:
        added, problem = None, f"the prompt's length with or without the {medium} is unknown"
    else:
        added = tokens - text_tokens
        problem = f"with the {medium} the prompt is {added} tokens longer than without it"
    checks = {f"the {medium} cost tokens": None if added is not None and added > 0 else problem}
    return checklist(
        {**_answer_checks(answer), **checks},
        {**_answer_evidence(answer), f"{medium}_tokens": added},
    )


def _answer_evidence(answer: Completion | Refusal) -> dict[str, object]:
    if isinstance(answer, Refusal):
        return {}
    return {"got": answer.text, "answer": answer_facts(answer)}


def _answer_checks(answer: Completion | Refusal) -> dict[str, str | None]:
    if isinstance(answer, Refusal):
        return {"answered": str(answer)}
    return {
        "answered": None,
        "finish reason": _problem_unless(
            answer.finish_reason in {"stop", "length"},
            f"it is {answer.finish_reason!r}, neither 'stop' nor 'length'",
        ),
        "usage adds up": _usage_problem(answer),
        **_list_check(answer),
    }


def _usage_problem(answer: Completion) -> str | None:
    """The problem with an answer's usage, or None; compared with the reply's token ids if any."""
    usage = answer.usage
    if (
        usage is None
        or min(usage.prompt_tokens, usage.completion_tokens) <= 0
        or usage.total_tokens != usage.prompt_tokens + usage.completion_tokens
    ):
        return f"it is {usage}"
    counted = {
        "prompt": (usage.prompt_tokens, answer.prompt_token_ids),
        "completion": (usage.completion_tokens, answer.token_ids),
    }
    wrong = [
        f"it reports {reported} {kind} tokens, but the reply has {len(ids)}"
        for kind, (reported, ids) in counted.items()
        if ids is not None and reported != len(ids)
    ]
    return "; ".join(wrong) or None


def _list_check(answer: Completion) -> dict[str, str | None]:
    """The check of the lists of log-probabilities, if the reply has any."""
    if answer.top is None or answer.token_ids is None:
        return {}
    return {
        "each token is the likeliest of its list": _list_problem(answer.token_ids, answer.top),
        "each token has the log-probability of its list": _own_problem(answer),
    }


def _list_problem(token_ids: Sequence[int], top: TopLogprobs) -> str | None:
    """The problem with the first greedy token that its own list does not rank first, or None.

    Ties pass. A list of another position looks plausible; only the token shows that it is wrong.
    """
    if len(top) != len(token_ids):
        return f"{len(token_ids)} tokens have {len(top)} lists of log-probabilities"
    for position, token in enumerate(token_ids):
        listed = top.at(position)
        own = listed.get(token, -math.inf)
        if likelier := [other for other, value in listed.items() if value > own]:
            return (
                f"token {position + 1} of the answer is {token}, but its list has {likelier[0]} "
                f"first, and {token} {f'at {own:.3g}' if token in listed else 'not at all'}. "
                "Either the lists belong to other positions, or the sampler did not choose the "
                "most likely token (a repetition penalty, for example; --generation-config=vllm "
                "disables it)"
            )
    return None


def _own_problem(answer: Completion) -> str | None:
    """The problem with the first token whose own entry contradicts its list, or None.

    A token that is not listed has nothing to be compared with.
    """
    for position, (token, own) in enumerate(zip(answer.token_ids or (), answer.own, strict=False)):
        if own.token != token:
            return f"token {position + 1} of the answer is {token}, but its entry is of {own.token}"
        if own.value is None or own.listed is None:
            continue
        if not math.isclose(own.value, own.listed, rel_tol=_ROUNDED, abs_tol=_ROUNDED):
            return (
                f"token {position + 1} of the answer has the log-probability {own.value:.4g}, but "
                f"{own.listed:.4g} in its list"
            )
    return None


def judge_stream(streamed: Completion, whole: Completion, attempts: Sequence[Stream]) -> Verdict:
    """The streamed deltas, joined, equal the unstreamed answer, and arrive while it is made.

    Args:
        streamed: a streamed answer.
        whole: the answer to the same request, not streamed.
        attempts: streams of one long answer, up to the first whose pieces are in time.

    Raises:
        PreconditionError: the pieces of all attempts are late, and a lack of CPU explains it.
    """
    lines = side_by_side(whole.text, streamed.text, "whole")
    return checklist(
        {
            "text": _problem_unless(streamed.text == whole.text, "\n".join(("", *lines))),
            "finish reason": _problem_unless(
                streamed.finish_reason == whole.finish_reason,
                f"streamed {streamed.finish_reason!r}, whole {whole.finish_reason!r}",
            ),
            "usage": _usage_difference(streamed.usage, whole.usage),
            **_streamed_list_check(streamed, whole),
            "pieces arrive while the answer is made": _late_problem(attempts),
        },
        {
            "first_token_seconds": streamed.first_token_seconds,
            "lateness": [one.lateness for one in attempts],
        },
    )


def _usage_difference(streamed: Usage | None, whole: Usage | None) -> str | None:
    """The token counts that differ, or None."""
    if streamed is None or whole is None:
        return None
    counts = [(name, getattr(streamed, name), getattr(whole, name)) for name in TOKEN_COUNTS]
    told = (f"{name}: streamed {one}, whole {other}" for name, one, other in counts if one != other)
    return "; ".join(told) or None


def _streamed_list_check(streamed: Completion, whole: Completion) -> dict[str, str | None]:
    """The check of the streamed log-probabilities.

    It is left out if the whole answer has none, or another text.
    """
    if whole.top is None or streamed.text != whole.text:
        return {}
    return {"log-probabilities": _streamed_list_problem(streamed, whole.own, whole.top)}


def _streamed_list_problem(
    streamed: Completion, own: Sequence[OwnEntry], top: TopLogprobs
) -> str | None:
    """The problem with the first streamed list that is not that of the whole answer, or None."""
    if streamed.top is None:
        return "the stream has none, though the request asks for them"
    tokens, expected = ([entry.token for entry in side] for side in (streamed.own, own))
    position = first_difference(tokens, expected)
    if position is not None:
        return (
            f"they differ at token {position + 1}: {len(tokens)} tokens are streamed with them, "
            f"the whole answer has {len(expected)}"
        )
    for position, (one, other) in enumerate(zip(streamed.own, own, strict=True)):
        difference = max(
            _number_difference(one.value, other.value),
            _lists_difference(streamed.top.at(position), top.at(position)),
        )
        if not difference <= STREAM_LOGPROBS:
            return (
                f"those of token {position + 1} differ by {difference:.3g} nats from those of the "
                f"whole answer, at most {STREAM_LOGPROBS:g} is allowed"
            )
    return None


def _number_difference(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else abs(one - other)


def _lists_difference(one: dict[int, float], other: dict[int, float]) -> float:
    """The mean difference of two lists; a list of one token is judged by its own entry alone."""
    return list_difference(one, other) if min(len(one), len(other)) > 1 else 0.0


def is_in_time(stream: Stream) -> bool:
    """True if the pieces of a stream arrive while the answer is made."""
    return stream.lateness <= STREAM_LATENESS


def _late_problem(attempts: Sequence[Stream]) -> str | None:
    """The problem with streams whose pieces are all late, or None if one of them is in time.

    Raises:
        PreconditionError: the client had no CPU for as long as the pieces of all are late.
    """
    if any(map(is_in_time, attempts)):
        return None
    count = len(attempts)
    judged = [one for one in attempts if not _is_starved(one)]
    if not judged:
        first = attempts[0]
        raise PreconditionError(
            f"the pieces of {count} streams arrived late, but the client waited for a CPU for "
            f"{first.starved_seconds:.3f} s of the {first.seconds:.3f} s of the first one, and an "
            f"answer of one token took {first.one_token_seconds:.3f} s. So streams are not judged. "
            "Run again on a host with free cores. If you started the server by hand, start it in "
            "the session of this run: docs/performance.md."
        )
    best = min(judged, key=lambda one: one.lateness)
    return (
        f"in each of {count} streams, pieces arrive too late. The best one: {best.tokens} tokens, "
        f"made within {best.made_seconds:.3f} s; {len(best.arrivals)} pieces, the first after "
        f"{best.arrivals[0]:.3f} s, the last after {best.arrivals[-1]:.3f} s. The mean piece is "
        f"{best.lateness:.2f} of that time late, at most {STREAM_LATENESS:g} is allowed"
    )


def _is_starved(stream: Stream) -> bool:
    """True if the client waited for a CPU as long as the mean piece was late, or nothing is known.

    Nothing is known if the whole answer took no longer than one token.
    """
    return not stream.starved_seconds < stream.lateness * stream.made_seconds


def judge_limits(
    cut: Completion,
    sampling: Sampling,
    stopped: Completion,
    stop: str,
    several: Sequence[Completion],
) -> Verdict:
    """The server obeys max_tokens, stop and n.

    Args:
        cut: the answer to a request whose max_tokens is too small for the whole answer.
        sampling: the sampling parameters of that request.
        stopped: the answer to a request with a stop string.
        stop: the stop string.
        several: the answers to one request with n=2.
    """
    tokens = cut.usage.completion_tokens if cut.usage else None
    return checklist(
        {
            "max_tokens": _problem_unless(
                tokens == sampling.max_tokens and cut.finish_reason == "length",
                f"with max_tokens={sampling.max_tokens} the answer has {tokens} tokens and the "
                f"finish reason {cut.finish_reason!r}",
            ),
            "stop": _problem_unless(
                stop not in stopped.text and stopped.finish_reason == "stop",
                f"with stop={stop!r} the answer is {stopped.text!r} and the finish reason "
                f"{stopped.finish_reason!r}",
            ),
            "n": _problem_unless(len(several) == 2, f"with n=2 there are {len(several)} answers"),
            "usage with n": _problem_with_usage_of(several),
        }
    )


def _problem_with_usage_of(answers: Sequence[Completion]) -> str | None:
    """The problem of a usage that does not count the tokens of all answers to one request."""
    counted = next((one.usage.completion_tokens for one in answers if one.usage), None)
    if counted is None or any(one.token_ids is None for one in answers):
        return None
    tokens = sum(len(one.token_ids or ()) for one in answers)
    if counted == tokens:
        return None
    return f"usage has {counted} completion tokens, {len(answers)} answers have {tokens}"


def judge_image_limit(
    within: Completion | Refusal, beyond: Completion | Refusal, limit: int
) -> Verdict:
    """A request with the declared number of images is answered; one more is refused with a 4xx."""
    return checklist(
        {
            f"{limit} images": None if isinstance(within, Completion) else str(within),
            f"{limit + 1} images": client_error(beyond),
        }
    )


def judge_refusals(
    answers: Mapping[str, Completion | Refusal], afterwards: Completion | Refusal
) -> Verdict:
    """Each bad request gets a 4xx with a JSON error, and the next good request is answered.

    If the good request is not answered, the verdict has only that problem.

    Args:
        answers: name of a bad request -> the reply to it.
        afterwards: the reply to a good request that was sent after all bad ones.
    """
    if isinstance(afterwards, Refusal):
        problem = f"it got {afterwards.reply} after {', '.join(answers)}: {afterwards.message}"
        return checklist({"the next good request": problem})
    checks = {label: client_error(answer) for label, answer in answers.items()}
    return checklist({**checks, "the next good request": None})


def client_error(answer: Completion | Refusal) -> str | None:
    """The problem with the reply to a bad request, or None if it is a 4xx with a JSON error."""
    if isinstance(answer, Completion):
        return f"it was answered: {answer.text[:60]!r}"
    if not answer.is_client_error:
        return f"{answer.reply} instead of a 4xx: {answer.message}"
    return None if answer.is_json_error else f"the body has no JSON error: {answer.message}"


def _problem_unless(passes: bool, problem: str) -> str | None:
    return None if passes else problem
