"""The divergence of two token sequences, and whether rounding alone explains it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Divergence:
    """The first token in which an answer differs from the expected answer.

    Attributes:
        position: the token's index in the answer.
        expected: the token of the expected answer; None after its end.
        got: the token of the answer that is judged; None after its end.
        preference: the log-probability of the expected side's best token minus that of the token
            it is compared with, nats; infinite if one of them is unknown.
        tie: the preference up to which rounding alone can change the choice, nats.
        candidates: the expected side's tokens at the position -> log-probability, nats; empty if
            they are unknown.
    """

    position: int
    expected: int | None
    got: int | None
    preference: float
    tie: float
    candidates: Mapping[int, float] = field(default_factory=dict)

    @property
    def preferred_by(self) -> str:
        """The preference as a text."""
        known = math.isfinite(self.preference)
        return f"{self.preference:.3g} nats" if known else "an amount that is not known"

    @property
    def is_near_tie(self) -> bool:
        """True if rounding alone explains the divergence."""
        return self.preference <= self.tie


def first_difference(left: Sequence[object], right: Sequence[object]) -> int | None:
    """The index of the first differing item of two sequences, or None if they are equal."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return None if len(left) == len(right) else min(len(left), len(right))


def token_at(tokens: Sequence[int], position: int) -> int | None:
    """The token at a position, or None after the end."""
    return tokens[position] if position < len(tokens) else None
