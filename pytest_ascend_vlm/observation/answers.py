"""What engines report and criteria judge: completions, refusals, references.

Arrays are NumPy; log-probabilities are natural logarithms (nats).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import ServerError
from .numerics import ReferenceNumerics, listed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .numerics import ReferenceNumerics

TOP_LOGPROBS = 20
"""Tokens listed at each position of an answer (vLLM's default maximum)."""


@dataclass(frozen=True)
class Usage:
    """Token counts of one request; `cached_tokens` is None where the server does not tell."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True, eq=False)
class TopLogprobs:
    """The k most likely tokens at each of n positions.

    Attributes:
        token_ids: shape (n, k), int64; -1 where a position listed fewer than k.
        logprobs: shape (n, k), float64, nats; NaN where token_ids is -1.
    """

    token_ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.token_ids)

    def at(self, position: int) -> dict[int, float]:
        """Token id -> log-probability of the tokens listed at a position."""
        return listed(self.token_ids[position], self.logprobs[position])


@dataclass(frozen=True, eq=False)
class Completion:
    """One answer of an engine.

    Attributes:
        case_id: the case that was asked.
        text: the answer.
        token_ids: its tokens, the end-of-sequence token included where the engine reports it;
            None where it reports no ids.
        finish_reason: "stop" or "length".
        usage: token counts; None in a stream that carries none.
        top: the most likely tokens at each position of the answer; None where not asked for.
        seconds: from sending the request to the last byte.
        first_token_seconds: TTFT of a streamed answer.
        prompt_token_ids: the prompt's tokens, those of images included; None where not reported.
    """

    case_id: str
    text: str
    token_ids: tuple[int, ...] | None
    finish_reason: str | None
    usage: Usage | None
    top: TopLogprobs | None
    seconds: float
    first_token_seconds: float | None = None
    prompt_token_ids: tuple[int, ...] | None = None

    @property
    def prompt_tokens(self) -> int | None:
        """Length of the prompt, counted rather than told; None where it is neither."""
        if self.prompt_token_ids is not None:
            return len(self.prompt_token_ids)
        return self.usage.prompt_tokens if self.usage else None


@dataclass(frozen=True)
class Refusal:
    """An HTTP answer that is not a completion.

    Attributes:
        status: the HTTP status; 0 where the server hung up instead.
        message: the body, shortened.
        is_json_error: whether the body is JSON with an `error` object, as OpenAI's API has it.
    """

    status: int
    message: str
    is_json_error: bool


def require_answer(case_id: str, answer: Completion | Refusal) -> Completion:
    """The answer itself.

    Raises:
        ServerError: it is a refusal.
    """
    if isinstance(answer, Refusal):
        raise ServerError(f"{case_id}: the server answered {answer.status}: {answer.message}")
    return answer


@dataclass(frozen=True, eq=False)
class Reference:
    """What the answer should be.

    Attributes:
        case_id: the case.
        source: "recorded with ..." or "published in ...", as a verdict names it.
        text: the expected answer.
        is_published: True where only a document's text is known.
        prompt_tokens: length of the reference's prompt; None where published.
        token_ids: the greedy answer's tokens; None where published.
        numerics: None where published.
        provenance: what a golden says of where it comes from; empty where this is none.
    """

    case_id: str
    source: str
    text: str
    is_published: bool = False
    prompt_tokens: int | None = None
    token_ids: tuple[int, ...] | None = None
    numerics: ReferenceNumerics | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
