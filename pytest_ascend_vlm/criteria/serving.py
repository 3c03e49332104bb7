"""Does the endpoint keep the promises of the API?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..observation.answers import Completion, Refusal
from ..spec.case import Sampling
from .text import side_by_side
from .verdict import Verdict, at_most, checklist


def judge_start(
    seconds: Mapping[str, float], budgets: Mapping[str, float], memory_mib: float | None
) -> Verdict:
    """Every start phase took at most its budget; measured is the largest share of one.

    Args:
        seconds: phase -> seconds it took.
        budgets: phase -> seconds it may take.
        memory_mib: memory the started server holds, where the platform can tell.
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
    """`/v1/models` answers 200 and lists the served name."""
    if isinstance(listed, Refusal):
        return checklist({"/v1/models answers": f"HTTP {listed.status}: {listed.message}"})
    missing = None if served_name in listed else f"{served_name!r} is not among {list(listed)}"
    return checklist({"/v1/models answers": None, "served name listed": missing})


def judge_answer(answer: Completion | Refusal) -> Verdict:
    """200, a finish reason, usage that adds up, and log-probabilities of the answer's tokens.

    Args:
        answer: what came back for a greedy request.
    """
    return checklist(_sound(answer), _got(answer))


def judge_media(answer: Completion | Refusal, tokens_of_the_text: int | None, what: str) -> Verdict:
    """As `judge_answer`, and what was sent beside the text cost tokens.

    Args:
        answer: what came back for a greedy request with an image or a clip.
        tokens_of_the_text: length of the prompt without it; None where that could not be asked,
            which leaves the check unfulfilled.
        what: "image" or "video".
    """
    tokens = answer.prompt_tokens if isinstance(answer, Completion) else None
    if tokens is None or tokens_of_the_text is None:
        cost, problem = None, f"the prompt's length with and without the {what} could not be told"
    else:
        cost = tokens - tokens_of_the_text
        problem = f"the prompt grew by {cost} tokens"
    checks = {f"the {what} cost tokens": None if cost is not None and cost > 0 else problem}
    return checklist({**_sound(answer), **checks}, {**_got(answer), f"{what}_tokens": cost})


def _got(answer: Completion | Refusal) -> dict[str, object]:
    return {"got": answer.text} if isinstance(answer, Completion) else {}


def _sound(answer: Completion | Refusal) -> dict[str, str | None]:
    if isinstance(answer, Refusal):
        return {"answered": f"HTTP {answer.status}: {answer.message}"}
    return {
        "answered": None,
        "finish reason": _unless(
            answer.finish_reason in {"stop", "length"}, f"it is {answer.finish_reason!r}"
        ),
        "usage adds up": _usage_problem(answer),
        "each token is the likeliest of its list": _list_problem(answer),
    }


def _usage_problem(answer: Completion) -> str | None:
    """What is wrong with an answer's token counts, its own tokens counted where it has them."""
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
        f"it says {told} {what} tokens, and the reply has {len(ids)}"
        for what, (told, ids) in counted.items()
        if ids is not None and told != len(ids)
    ]
    return "; ".join(wrong) or None


def _list_problem(answer: Completion) -> str | None:
    """The first greedy token that its own list does not rank first, or None; ties are no problem.

    Lists of another position look as plausible as the right ones: only the token tells them apart.
    """
    if answer.top is None or answer.token_ids is None:
        return None
    if len(answer.top) != len(answer.token_ids):
        return f"{len(answer.token_ids)} tokens have {len(answer.top)} lists of log-probabilities"
    for position, token in enumerate(answer.token_ids):
        listed = answer.top.at(position)
        own = listed.get(token, -math.inf)
        if likelier := [other for other, value in listed.items() if value > own]:
            return (
                f"token {position + 1} of the answer is {token}, and its list has {likelier[0]} "
                f"first, {token} {f'at {own:.3g}' if token in listed else 'not at all'}. The lists "
                "may be those of other positions, or something else than the likeliest token was "
                "chosen (a repetition penalty; --generation-config=vllm leaves it out)"
            )
    return None


def judge_encodings(answers: Mapping[str, Completion | Refusal]) -> Verdict:
    """Every lossless encoding of one image gives the answer that the first one gives."""
    labels = list(answers)
    first = answers[labels[0]]
    if isinstance(first, Refusal):
        return checklist({labels[0]: f"HTTP {first.status}: {first.message}"})
    checks: dict[str, str | None] = {labels[0]: None}
    for label in labels[1:]:
        answer = answers[label]
        if isinstance(answer, Refusal):
            checks[label] = f"HTTP {answer.status}: {answer.message}"
        else:
            lines = side_by_side(first.text, answer.text, labels[0])
            checks[label] = _unless(answer.text == first.text, "\n".join(("", *lines)))
    return checklist(checks)


def judge_stream(streamed: Completion, whole: Completion) -> Verdict:
    """The streamed deltas add up to the unstreamed answer."""
    lines = side_by_side(whole.text, streamed.text, "whole")
    return checklist(
        {
            "text": _unless(streamed.text == whole.text, "\n".join(("", *lines))),
            "finish reason": _unless(
                streamed.finish_reason == whole.finish_reason,
                f"streamed {streamed.finish_reason!r}, whole {whole.finish_reason!r}",
            ),
            "usage": _unless(
                streamed.usage is None
                or whole.usage is None
                or streamed.usage.completion_tokens == whole.usage.completion_tokens,
                f"streamed {streamed.usage}, whole {whole.usage}",
            ),
        },
        {"first_token_seconds": streamed.first_token_seconds},
    )


def judge_limits(
    cut: Completion,
    sampling: Sampling,
    stopped: Completion,
    stop: str,
    several: Sequence[Completion],
) -> Verdict:
    """max_tokens, stop and n are obeyed.

    Args:
        cut: an answer that was asked for with sampling.max_tokens, too few for all of it.
        sampling: how `cut` was asked for.
        stopped: an answer that was asked for with a stop string.
        stop: that string.
        several: the answers to one request with sampling.n of 2.
    """
    tokens = cut.usage.completion_tokens if cut.usage else None
    return checklist(
        {
            "max_tokens": _unless(
                tokens == sampling.max_tokens and cut.finish_reason == "length",
                f"asked for {sampling.max_tokens} tokens, got {tokens} and the finish reason "
                f"{cut.finish_reason!r}",
            ),
            "stop": _unless(
                stop not in stopped.text and stopped.finish_reason == "stop",
                f"asked to stop at {stop!r}, got {stopped.text!r} and the finish reason "
                f"{stopped.finish_reason!r}",
            ),
            "n": _unless(len(several) == 2, f"asked for 2 answers, got {len(several)}"),
        }
    )


def judge_image_limit(
    within: Completion | Refusal, beyond: Completion | Refusal, limit: int
) -> Verdict:
    """As many images as declared are answered, one more is refused with a 4xx."""
    return checklist(
        {
            f"{limit} images": None
            if isinstance(within, Completion)
            else f"HTTP {within.status}: {within.message}",
            f"{limit + 1} images": client_error(beyond),
        }
    )


def judge_refusals(
    answers: Mapping[str, Completion | Refusal], afterwards: Completion | Refusal
) -> Verdict:
    """Each request is refused with a 4xx and a JSON error, and the next good one is answered.

    Where it is not, that is the finding: how the bad ones were refused matters no more.

    Args:
        answers: what was wrong with a request -> what came back.
        afterwards: the answer to a good request sent after all of them.
    """
    if isinstance(afterwards, Refusal):
        came = f"HTTP {afterwards.status}" if afterwards.status else "no answer"
        after = f"it got {came} after {', '.join(answers)}: {afterwards.message}"
        return checklist({"the next good request": after})
    checks = {label: client_error(answer) for label, answer in answers.items()}
    return checklist({**checks, "the next good request": None})


def client_error(answer: Completion | Refusal) -> str | None:
    """What is wrong with the refusal of a bad request, or None where it is a proper 4xx."""
    if isinstance(answer, Completion):
        return f"it was answered: {answer.text[:60]!r}"
    if not 400 <= answer.status < 500:
        came = f"HTTP {answer.status}" if answer.status else "no answer"
        return f"{came} instead of a 4xx: {answer.message}"
    return None if answer.is_json_error else f"the body is not a JSON error: {answer.message}"


def _unless(holds: bool, problem: str) -> str | None:
    return None if holds else problem
