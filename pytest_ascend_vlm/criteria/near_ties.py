"""Near-ties of a served answer, for answers that no reference has."""

from __future__ import annotations

import math

from ..observation.answers import Completion
from .divergence import first_difference, token_at

COMPANY = 0.5
"""Difference of two log-probabilities that another shape of a batch or prompt can turn round, nats.

It is twice the step of bf16 between logits of 32 and 64.
"""


def are_close(first: Completion, other: Completion, position: int, within: float) -> bool:
    """True if both answers' tokens at a position are about equally likely in the first answer."""
    one, another = (token_at(answer.token_ids or (), position) for answer in (first, other))
    if one is None or another is None:
        return False
    listed = first.candidates_at(position)
    return abs(listed.get(one, math.inf) - listed.get(another, -math.inf)) <= within


def part_at_own_tie(first: Completion, other: Completion) -> bool:
    """True if two answers part where the candidates are about equally likely in both of them.

    Rounding can exchange two candidates of a near-tie, but they stay close in both answers. If they
    are far apart in one of them, rounding is not the cause.
    """
    if first.token_ids is None or other.token_ids is None:
        return False
    position = first_difference(first.token_ids, other.token_ids)
    return (
        position is not None
        and are_close(first, other, position, COMPANY)
        and are_close(other, first, position, COMPANY)
    )
