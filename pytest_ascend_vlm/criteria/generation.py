"""Rule of numerics.answers: generation gives the log-probabilities of the same tokens, forced.

A forced answer is computed in one pass; a generated one token by token, from the KV cache.
"""

from __future__ import annotations

import numpy as np

from ..errors import PreconditionError
from ..observation.answers import Completion
from ..observation.numerics import Forced, ReferenceNumerics
from ..spec.thresholds import Thresholds
from .comparison import log_softmax, visible_rounding
from .divergence import first_difference
from .verdict import Verdict, at_most


def judge_generation(
    answer: Completion, forced: Forced, numerics: ReferenceNumerics, thresholds: Thresholds
) -> Verdict:
    """The log-probabilities listed with an answer are those of the same tokens, forced.

    Compared are the positions up to the first token that differs from the golden's. Each list is
    normalised over the tokens that both sides list.

    Args:
        answer: the answer.
        forced: the served model's scores of the golden's answer.
        numerics: the golden's numerics, whose own bf16 error gives the size of rounding.
        thresholds: the model's thresholds.

    Raises:
        PreconditionError: the server lists no log-probabilities with the answer.
    """
    if answer.top is None or answer.token_ids is None:
        raise PreconditionError(
            f"{answer.case_id}: the server listed no log-probabilities with the answer. vLLM lists "
            "them; a proxy in between may drop them."
        )
    first = int(numerics.positions[numerics.first_answer_row])
    same = first_difference(answer.token_ids, numerics.token_ids)
    count = min(len(answer.top), len(answer.token_ids) if same is None else same + 1)
    count = min(count, len(forced.scores) - first)
    differences = [
        list_difference(answer.top.at(index), forced.scores.at(first + index))
        for index in range(count)
    ]
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


def list_difference(one: dict[int, float], other: dict[int, float]) -> float:
    """The mean difference of two lists of one position; infinite if no token is in both."""
    common = [token for token in one if token in other]
    if not common:
        return float("inf")
    left, right = (
        log_softmax(np.array([[side[token] for token in common]])) for side in (one, other)
    )
    return float(np.abs(left - right).mean())
