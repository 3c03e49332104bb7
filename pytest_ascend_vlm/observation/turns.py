"""Two turns of a conversation, the second one with and without the blocks of the first one."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import Completion


@dataclass(frozen=True, eq=False)
class Turns:
    """The answers of a conversation.

    Attributes:
        first: the answer to the first turn.
        cold: the answer to the second turn, with an empty cache.
        warm: the same right after the first turn, whose blocks it may hit.
    """

    first: Completion
    cold: Completion
    warm: Completion

    @property
    def hits_answer(self) -> bool:
        """True if the second turn took tokens of the first answer from the cache."""
        return hits_answer(self.first, self.warm)


def hits_answer(first: Completion, second: Completion) -> bool:
    """True if a second turn took tokens of the first turn's answer from the cache."""
    return second.cached_tokens > (first.prompt_tokens or 0) > 0
