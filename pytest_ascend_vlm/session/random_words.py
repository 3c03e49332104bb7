"""Finds random words that make a prompt of a stated number of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import PreconditionError
from ..spec.thresholds import TOKENS_TOLERANCE

_WORDS = (
    *("ocean", "river", "paper", "green", "window", "seven", "little", "music"),
    *("stone", "table", "winter", "early", "garden", "north", "silver", "open"),
)
_SHORT = "a"
_TRIES = 8


def words_of(tokens: int, count: Callable[[Sequence[str]], int]) -> list[str]:
    """Random words that make a prompt of a number of tokens, or of the nearest possible number.

    Args:
        tokens: the number of tokens of the whole prompt.
        count: counts the tokens of the prompt that words make.

    Raises:
        PreconditionError: no number of words comes near.
    """
    draw = np.random.default_rng(0)
    words = _drawn(draw, 8)
    few, many = count(words), count(words * 4)
    each = max((many - few) / (3 * len(words)), 0.01)
    wanted = max(len(words) + math.floor((tokens - few) / each), 1)
    found: dict[int, list[str]] = {}
    words = _drawn(draw, wanted)
    for _ in range(_TRIES):
        missing = tokens - count(words)
        found[abs(missing)] = words
        if not missing:
            return words
        # Whole words first, then the rest with words of a single token.
        step = int(missing / each)
        if step < 0:
            words = words[: max(len(words) + step, 1)]
        elif step:
            words = [*words, *_drawn(draw, step)]
        else:
            words = [*words, *[_SHORT] * missing] if missing > 0 else words[:-1] or words
    nearest = min(found)
    if nearest > max(TOKENS_TOLERANCE * tokens, 4):
        raise PreconditionError(
            f"no text makes a prompt of {tokens} tokens; the nearest one differs by {nearest}. The "
            "chat template has tokens of its own: a workload needs more input_tokens, and "
            "performance.image_prefill needs a larger image."
        )
    return found[nearest]


def _drawn(draw: np.random.Generator, count: int) -> list[str]:
    return [str(word) for word in draw.choice(_WORDS, count)]
