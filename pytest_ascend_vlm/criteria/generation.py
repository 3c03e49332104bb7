"""Rules of numerics.answers and numerics.long_answer: generated tokens and the same, forced.

A forced answer is computed in one pass; a generated one token by token, from the KV cache.
"""

from __future__ import annotations

import numpy as np

from ..errors import PreconditionError
from ..observation.answers import TOP_LOGPROBS, Completion, TopLogprobs
from ..observation.numerics import Forced, ReferenceNumerics
from ..spec.thresholds import LONG_ANSWER_STRETCH, Thresholds
from .comparison import log_softmax, visible_rounding
from .divergence import first_difference
from .verdict import Verdict, at_most, largest


def judge_generation(
    answer: Completion, forced: Forced, numerics: ReferenceNumerics, thresholds: Thresholds
) -> Verdict:
    """The log-probabilities listed with an answer are those of the same tokens, forced.

    Compared are the positions up to the first token that differs from the golden's. The lists are
    normalised over the likeliest tokens of both.

    Args:
        answer: the answer.
        forced: the served model's scores of the golden's answer.
        numerics: the golden's numerics, whose own bf16 error gives the size of rounding.
        thresholds: the model's thresholds.

    Raises:
        PreconditionError: the server lists no log-probabilities with the answer.
    """
    top, tokens = _listed(answer)
    first = int(numerics.positions[numerics.first_answer_row])
    same = first_difference(tokens, numerics.token_ids)
    count = min(len(tokens) if same is None else same + 1, len(forced.scores) - first)
    differences = _differences(top, forced, first)[:count]
    mean, own = float(np.mean(differences)), visible_rounding(numerics)
    worst = int(np.argmax(differences))
    ratio = mean / own if own else float("inf")
    return at_most(
        mean,
        thresholds.logprobs_ratio * own,
        "nats",
        f"mean difference of the log-probabilities of {count} generated tokens from those of the "
        "same tokens, forced",
        (
            f"the reference's own bf16-fp32 difference is {own:.4g} nats; this difference is "
            f"{ratio:.2f} times that (at most {thresholds.logprobs_ratio:g})",
            f"largest at token {worst + 1} of {count}: {differences[worst]:.4g} nats",
        ),
        {"positions": count, "reference_rounding": own, "ratio": ratio if own else None},
    )


def require_length(answer: Completion, tokens: int) -> None:
    """Requires that an answer has as many tokens with log-probabilities as were asked for.

    Raises:
        PreconditionError: it has fewer, or none.
    """
    _, listed = _listed(answer)
    if len(listed) < tokens:
        raise PreconditionError(
            f"{answer.case_id}: {len(listed)} of {tokens} tokens came with log-probabilities, so "
            "the rest could not be judged. The server, or a proxy in between, may ignore the "
            "field ignore_eos."
        )


def require_whole_lists(answer: Completion) -> None:
    """Requires that each token of an answer came with as many log-probabilities as were asked for.

    The likeliest tokens differ least, so the mean over a shorter list would be too small.

    Raises:
        PreconditionError: a token came with fewer, or none did with any.
    """
    top, _ = _listed(answer)
    if (fewest := min(len(top.at(i)) for i in range(len(top)))) < TOP_LOGPROBS:
        raise PreconditionError(
            f"{answer.case_id}: the request asks for the {TOP_LOGPROBS} most likely tokens at each "
            f"position of the answer, and the server listed {fewest}, so the others cannot be "
            "compared. vLLM lists them all, or refuses the request; a proxy in between may cut "
            "top_logprobs."
        )


def judge_long_answer(
    answer: Completion, forced: Forced, numerics: ReferenceNumerics, thresholds: Thresholds
) -> Verdict:
    """The same for a long answer and its own tokens, forced: each stretch of it by itself.

    Over the whole answer, a defect that begins near its end would not show.

    Args:
        answer: the answer.
        forced: the served model's scores of its prompt and its tokens.
        numerics: the golden's numerics of the case, whose own bf16 error gives the size of
            rounding.
        thresholds: the model's thresholds.

    Raises:
        PreconditionError: the server lists no log-probabilities with the answer.
    """
    top, tokens = _listed(answer)
    count = len(tokens)
    differences = _differences(top, forced, len(forced.scores) - count)
    stretches = [
        float(np.mean(differences[start : start + LONG_ANSWER_STRETCH]))
        for start in range(0, count, LONG_ANSWER_STRETCH)
    ]
    own = visible_rounding(numerics)
    worst = largest(range(len(stretches)), lambda index: stretches[index])
    maximum = thresholds.logprobs_ratio * own
    begin = next((i for i, one in enumerate(stretches) if not one <= maximum), None)
    start = LONG_ANSWER_STRETCH * worst
    return at_most(
        stretches[worst],
        maximum,
        "nats",
        f"mean difference of the log-probabilities of tokens {start + 1} to "
        f"{min(start + LONG_ANSWER_STRETCH, count)} of {count} from those of the same tokens, "
        "forced; it is the largest of all stretches",
        (
            f"the reference's own bf16-fp32 difference is {own:.4g} nats",
            *(
                [f"it begins at token {LONG_ANSWER_STRETCH * begin + 1} or soon after it"]
                if begin is not None
                else []
            ),
        ),
        {
            "tokens": count,
            "reference_rounding": own,
            "stretches": [round(one, 5) for one in stretches],
        },
    )


def _listed(answer: Completion) -> tuple[TopLogprobs, tuple[int, ...]]:
    """The lists of an answer, and the tokens that have one; one at least."""
    if not answer.top or not answer.token_ids:
        raise PreconditionError(
            f"{answer.case_id}: the server listed no log-probabilities with the answer. vLLM lists "
            "them; a proxy in between may drop them."
        )
    return answer.top, answer.token_ids[: len(answer.top)]


def _differences(top: TopLogprobs, forced: Forced, first: int) -> list[float]:
    """The differences of the lists; row `first` of the forced scores is about the first token."""
    count = min(len(top), len(forced.scores) - first)
    return [list_difference(top.at(i), forced.scores.at(first + i)) for i in range(count)]


def list_difference(one: dict[int, float], other: dict[int, float]) -> float:
    """The mean difference of two lists of one position, over the likeliest tokens of both.

    A token that only one list has counts in the other as its least likely one. If only the common
    tokens counted, lists of different positions would differ the less, the fewer they share.

    Raises:
        PreconditionError: a list has fewer than two tokens, so there is nothing to compare.
    """
    count = min(len(one), len(other))
    if count < 2:
        raise PreconditionError(
            f"a position has only {count} log-probabilities, and one number says nothing after it "
            "is normalised. The server, or a proxy before it, may cut top_logprobs."
        )
    heads = [sorted(side, key=side.__getitem__, reverse=True)[:count] for side in (one, other)]
    tokens = list(dict.fromkeys(token for head in heads for token in head))
    left, right = (
        log_softmax(np.array([[side.get(token, side[head[-1]]) for token in tokens]]))
        for side, head in zip((one, other), heads, strict=True)
    )
    return float(np.abs(left - right).mean())
