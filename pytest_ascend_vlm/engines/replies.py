"""Converts a server's replies to observations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..errors import ConfigurationError, PreconditionError
from ..observation.answers import (
    TOKEN_COUNTS,
    Completion,
    OwnEntry,
    Refusal,
    ToolCall,
    TopLogprobs,
    Usage,
)
from . import logprobs
from .address import KEY_VARIABLE

_REASONING = ("reasoning", "reasoning_content")  # the second is the older name
_TEXT = -1  # stands for the id of a token that a list names by its text


class _Response(Protocol):
    """The common interface of the responses of httpx and of openai's HTTP library."""

    status_code: int

    @property
    def text(self) -> str:
        """The body."""


def completions(reply: Any, case_id: str, seconds: float) -> tuple[Completion, ...] | Refusal:
    """The answers in a reply with HTTP status 200; a refusal if it contains none.

    Args:
        reply: the reply, as an object of the openai library.
        case_id: the case that was sent.
        seconds: time from sending the request to the last byte.
    """
    choices = getattr(reply, "choices", None)
    if not choices or any(choice.message is None for choice in choices):
        return Refusal.of(200, f"no completion: {reply}")
    return tuple(_completion(choice, case_id, reply, seconds) for choice in choices)


def refusal(response: _Response) -> Refusal:
    """An HTTP response that is not a completion.

    Raises:
        ConfigurationError: if the server rejects the API key.
    """
    if response.status_code == 401:
        raise ConfigurationError(
            f"the server rejects the API key of the request (HTTP 401): set {KEY_VARIABLE}"
        )
    return Refusal.of(response.status_code, response.text)


def prompt_token_ids(reply: Any) -> tuple[int, ...] | None:
    """The prompt's tokens; None if the server does not report them."""
    ids = getattr(reply, "prompt_token_ids", None)
    return tuple(ids) if ids else None


def usage_of(usage: Any) -> Usage | None:
    """The token counts of a reply or of a chunk of a stream."""
    if usage is None:
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    prompt, completion, total = (getattr(usage, name, None) or 0 for name in TOKEN_COUNTS)
    return Usage(prompt, completion, total, details.cached_tokens if details else None)


class StreamedAnswers:
    """The answers of a stream, from the pieces that have arrived."""

    def __init__(self, asked: int) -> None:
        """Takes the number of answers that the request asks for.

        Clients of one answer do not read the index of a piece, so it is no matter then.
        """
        self._asked = asked
        self._answers: defaultdict[int, _StreamedAnswer] = defaultdict(_StreamedAnswer)

    def add(self, piece: Any, seconds: float) -> None:
        """Adds a piece to the answer of its index.

        Args:
            piece: a choice of a chunk. Without an index it belongs to the first answer.
            seconds: time from sending the request to its arrival.
        """
        index = getattr(piece, "index", 0) if self._asked > 1 else 0
        self._answers[index if type(index) is int else 0].add(piece, seconds)

    def completions(
        self, case_id: str, usage: Usage | None, seconds: float
    ) -> tuple[Completion, ...]:
        """The joined answers, by index; an empty one if no piece arrived.

        Args:
            case_id: the case that was sent.
            usage: the token counts of the stream.
            seconds: time from sending the request to the last byte.
        """
        answers = [self._answers[index] for index in sorted(self._answers)] or [_StreamedAnswer()]
        # A server may leave pieces without text out, and their tokens with them.
        tokens = sum(len(one.token_ids) for one in answers)
        is_whole = usage is not None and tokens == usage.completion_tokens
        joined = [one.completion(case_id, usage, seconds) for one in answers]
        return tuple(one if is_whole else replace(one, token_ids=None) for one in joined)


@dataclass
class _StreamedAnswer:
    texts: list[str] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    first: float | None = None
    finish: str | None = None

    def add(self, piece: Any, seconds: float) -> None:
        self.arrivals.append(seconds)
        _require_whole_text(piece.delta)
        if piece.delta.content:
            self.first = self.first or seconds
            self.texts.append(piece.delta.content)
        self.calls += piece.delta.tool_calls or ()
        self.positions += _positions(piece)
        ids = getattr(piece, "token_ids", None)
        self.token_ids += ids if isinstance(ids, list) else ()
        self.finish = piece.finish_reason or self.finish

    def completion(self, case_id: str, usage: Usage | None, seconds: float) -> Completion:
        return Completion(
            case_id=case_id,
            text="".join(self.texts),
            token_ids=tuple(self.token_ids),
            finish_reason=self.finish,
            usage=usage,
            top=_top_logprobs(self.positions),
            seconds=seconds,
            first_token_seconds=self.first,
            arrivals=tuple(self.arrivals),
            tool_calls=joined_calls(self.calls),
            own=_own_entries(self.positions),
        )


def joined_calls(pieces: Iterable[Any]) -> tuple[ToolCall, ...]:
    """The calls of a streamed answer; each piece has the index of the call that it belongs to.

    No client can join a piece without an index to others, so it is a call of its own.
    """
    joined: dict[object, ToolCall] = {}
    for piece in pieces:
        index = getattr(piece, "index", None)
        key = index if isinstance(index, int) else object()
        more, begun = _tool_call(piece), joined.get(key, ToolCall("", ""))
        joined[key] = ToolCall(begun.name + more.name, begun.arguments + more.arguments)
    return tuple(joined.values())


def _tool_call(call: Any) -> ToolCall:
    """A call, or a piece of one, which may lack its name or its arguments."""
    function = getattr(call, "function", None)
    return ToolCall(*(_text(getattr(function, name, None)) for name in ("name", "arguments")))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else repr(value)


def _completion(choice: Any, case_id: str, reply: Any, seconds: float) -> Completion:
    _require_whole_text(choice.message)
    ids = getattr(choice, "token_ids", None)
    return Completion(
        case_id=case_id,
        text=choice.message.content or "",
        token_ids=tuple(ids) if ids is not None else None,
        finish_reason=choice.finish_reason,
        usage=usage_of(reply.usage),
        top=_top_logprobs(_positions(choice)),
        seconds=seconds,
        prompt_token_ids=prompt_token_ids(reply),
        tool_calls=tuple(map(_tool_call, choice.message.tool_calls or ())),
        own=_own_entries(_positions(choice)),
    )


def _require_whole_text(message: Any) -> None:
    """Requires that the text of a message, or of a piece of one, is the whole answer.

    Raises:
        PreconditionError: the server has put some of it into a field of its own.
    """
    for name in _REASONING:
        moved = getattr(message, name, None)
        if isinstance(moved, str) and moved.strip():
            raise PreconditionError(
                f"the server puts the answer, or its first part, into the field {name} of the "
                "reply, so its text is not what the model generated. Start it without "
                "--reasoning-parser; if the suite starts it, remove reasoning_parser from serve= "
                "in the model file (docs/own-server.md)."
            )


def _positions(choice: Any) -> list[Any]:
    """What a reply, or a piece of a stream, has about the positions of its tokens."""
    return list(getattr(getattr(choice, "logprobs", None), "content", None) or ())


def _top_logprobs(positions: Sequence[Any]) -> TopLogprobs | None:
    """The lists of an answer; None if there are none, or they have the tokens' texts."""
    lists = [_listed(position) for position in positions]
    has_texts = any(_TEXT in listed for listed in lists)
    return logprobs.top_logprobs(lists) if lists and not has_texts else None


def _own_entries(positions: Sequence[Any]) -> tuple[OwnEntry, ...]:
    """The entries of an answer's own tokens; none if they have the tokens' texts."""
    entries = []
    for position in positions:
        token = _token_id(position.token)
        value = getattr(position, "logprob", None)
        entries.append(OwnEntry(token, value, _listed(position).get(token)))
    return () if any(entry.token == _TEXT for entry in entries) else tuple(entries)


def _listed(position: Any) -> dict[int, float]:
    """Token id -> its value in the list of a position."""
    entries = getattr(position, "top_logprobs", None) or ()
    return {_token_id(entry.token): entry.logprob for entry in entries}


def _token_id(name: str) -> int:
    """`token_id:123` -> 123; `_TEXT` if the server returns the token's text instead."""
    prefix, _, number = name.partition(":")
    return int(number) if prefix == "token_id" and number.isdigit() else _TEXT
