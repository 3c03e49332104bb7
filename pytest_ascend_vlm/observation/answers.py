"""Answers of engines: completions, refusals and references.

Arrays are NumPy; log-probabilities are natural logarithms (nats).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..control_characters import printable, with_visible_controls
from ..errors import ServerError
from .numerics import ReferenceNumerics, listed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SHOWN = 300

TOP_LOGPROBS = 20
"""Number of tokens listed at each position of an answer (vLLM's default maximum)."""


TokenText = Callable[[int], str]
"""Token id -> its text."""


TOKEN_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
"""The counts that `usage` has in OpenAI's API."""


@dataclass(frozen=True)
class Usage:
    """Token counts of one request.

    A count that the server does not report is 0, and None if it is `cached_tokens`.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int | None = None


@dataclass(frozen=True, eq=False)
class TopLogprobs:
    """The k most likely tokens at each of n positions.

    Attributes:
        token_ids: shape (n, k), int64; -1 where a position lists fewer than k tokens.
        logprobs: shape (n, k), float64, nats; NaN where token_ids is -1.
    """

    token_ids: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.token_ids)

    def at(self, position: int) -> dict[int, float]:
        """Token id -> log-probability of the tokens listed at a position."""
        return listed(self.token_ids[position], self.logprobs[position])


@dataclass(frozen=True)
class OwnEntry:
    """The entry of a token of an answer that stands beside the list of its position.

    Attributes:
        token: the token's id.
        value: its log-probability or raw logit, as the server returned it; None if it has none.
        listed: the value of the same token in the list; None if it is not listed.
    """

    token: int
    value: float | None
    listed: float | None


@dataclass(frozen=True)
class ToolCall:
    """A call of a function in an answer.

    Attributes:
        name: the function.
        arguments: its arguments as the server returned them, which should be JSON.
    """

    name: str
    arguments: str

    def __str__(self) -> str:
        """The call, in one line."""
        return f"{printable(self.name)}({printable(self.arguments)})"


@dataclass(frozen=True, eq=False)
class Completion:
    """One answer of an engine.

    Attributes:
        case_id: the case.
        text: the answer.
        token_ids: the answer's tokens, with the end-of-sequence token if the engine reports it;
            None if the engine reports no ids.
        finish_reason: "stop", "length" or "tool_calls".
        usage: token counts; None if the reply has none.
        top: the most likely tokens at each position of the answer; None if not requested.
        own: the entries of the answer's own tokens beside these lists.
        seconds: time from sending the request to the last byte.
        first_token_seconds: TTFT of a streamed answer.
        prompt_token_ids: the prompt's tokens, image tokens included; None if not reported.
        arrivals: seconds from sending the request to each piece of a streamed answer, those without
            text included.
        tool_calls: the functions that it calls.
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
    arrivals: tuple[float, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    own: tuple[OwnEntry, ...] = ()

    @property
    def prompt_tokens(self) -> int | None:
        """Length of the prompt: the number of its token ids, else the count in usage, else None."""
        if self.prompt_token_ids is not None:
            return len(self.prompt_token_ids)
        return self.usage.prompt_tokens if self.usage else None

    def candidates_at(self, position: int) -> dict[int, float]:
        """Token id -> log-probability (nats) of the tokens listed at a position; empty if none."""
        listed = self.top is not None and position < len(self.top)
        return self.top.at(position) if self.top is not None and listed else {}

    def preference_over(self, token: int | None, position: int) -> float:
        """How far the likeliest token at a position is ahead of another, nats.

        Infinite if the other one is None or not listed.
        """
        listed = self.candidates_at(position)
        other = None if token is None else listed.get(token)
        return math.inf if other is None else max(listed.values()) - other

    @property
    def cached_tokens(self) -> int:
        """Number of the prompt's tokens from the prefix cache; 0 if the reply does not tell."""
        return (self.usage.cached_tokens or 0) if self.usage else 0


@dataclass(frozen=True)
class Refusal:
    """A reply that is not a completion.

    Attributes:
        status: the HTTP status; 0 if the server closed the connection without a reply.
        message: the body, shortened.
        is_json_error: True if the body is JSON with an `error` object, as in OpenAI's API.
    """

    status: int
    message: str
    is_json_error: bool

    @classmethod
    def of(cls, status: int, text: str) -> Refusal:
        """The refusal of a reply with this status and body."""
        try:
            body = json.loads(text)
        except ValueError:
            body = None
        is_error = isinstance(body, dict) and ("error" in body or body.get("object") == "error")
        return cls(status, text[:_SHOWN], is_error)

    @property
    def is_client_error(self) -> bool:
        """True if the server says that the request is wrong: HTTP 4xx."""
        return 400 <= self.status < 500

    @property
    def reply(self) -> str:
        """What the server replied, in short."""
        return f"HTTP {self.status}" if self.status else "no answer"

    def __str__(self) -> str:
        return f"{self.reply}: {with_visible_controls(self.message)}"


def first_reply(answers: tuple[Completion, ...] | Refusal) -> Completion | Refusal:
    """The only answer of a request that asks for one, or the HTTP error."""
    return answers if isinstance(answers, Refusal) else answers[0]


def reply_or_refusal(send: Callable[[], Completion | Refusal]) -> Completion | Refusal:
    """The reply to a request, or a `Refusal` of status 0 if the server did not reply.

    Args:
        send: sends the request; raises a `ServerError` if there is no reply.
    """
    try:
        return send()
    except ServerError as error:
        return Refusal(0, str(error), is_json_error=False)


def require_answer(case_id: str, answer: Completion | Refusal) -> Completion:
    """Returns the answer if it is a completion.

    Raises:
        ServerError: the answer is a refusal.
    """
    if isinstance(answer, Refusal):
        raise ServerError(f"{case_id}: the server returned {answer.status}: {answer.message}")
    return answer


@dataclass(frozen=True, eq=False)
class Reference:
    """The expected answer to a case.

    Attributes:
        case_id: the case.
        source: "recorded with ..." or "published in ..."; verdicts show it.
        text: the expected answer.
        is_published: True if only the text from a document is known.
        prompt_token_ids: tokens of the reference's prompt, image tokens included; None if
            published.
        token_ids: tokens of the greedy answer; None if published.
        numerics: the numerics of the answer; None if published.
        provenance: the golden's provenance; empty if published.
        placeholders: tokens that only hold the place of a frame. The frame's embedding replaces
            them, and engines use different ones of them; empty if the engines agree.
    """

    case_id: str
    source: str
    text: str
    is_published: bool = False
    prompt_token_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    numerics: ReferenceNumerics | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    placeholders: tuple[int, ...] = ()

    @property
    def prompt_tokens(self) -> int | None:
        """Length of the prompt; None if published."""
        return None if self.prompt_token_ids is None else len(self.prompt_token_ids)
