"""Where two token sequences part, and whether rounding alone explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Divergence:
    """The first token at which an answer leaves the one that it is compared with.

    Attributes:
        position: its index in the answer.
        expected: the token of the other answer; None where that is shorter.
        got: the token of this answer; None where this is shorter.
        preference: how far the other side preferred its own token, nats; infinite where nothing is
            known of one of the two.
        tie: the preference up to which rounding alone can turn the choice, nats.
    """

    position: int
    expected: int | None
    got: int | None
    preference: float
    tie: float

    @property
    def is_near_tie(self) -> bool:
        """Whether rounding alone explains the divergence."""
        return self.preference <= self.tie


def first_difference(left: Sequence[object], right: Sequence[object]) -> int | None:
    """Index of the first differing item of two sequences, None where they are equal."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return None if len(left) == len(right) else min(len(left), len(right))


def token_at(tokens: Sequence[int], position: int) -> int | None:
    """The token at a position; None behind the end."""
    return tokens[position] if position < len(tokens) else None
