"""The client of a served model: single, sampled, streamed, concurrent and forced answers."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import openai

from ..errors import ServerError
from ..observation.answers import TOP_LOGPROBS, Completion, Refusal, first_reply, require_answer
from ..observation.exchange import Exchange
from ..observation.numerics import FORCED_TOKENS, Forced
from ..spec.case import Case, Sampling
from ..spec.step import Step
from . import logprobs
from .cold import cold_part, new_salt, without_uuid
from .connection import BARE, Connection
from .endpoint import Endpoint
from .messages import Part, messages
from .replies import StreamedAnswers, completions, refusal, usage_of

_Reply = TypeVar("_Reply")
Chat = Sequence[Mapping[str, Any]]
"""The messages of a request."""

_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


class Client:
    """The client of a served model.

    Attributes:
        endpoint: the server's address.
        completions: every completion so far, in the order in which tests received or reused them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_lost: Callable[[], None],
        timeout_seconds: float = 600.0,
        ensure: Callable[[], None] = lambda: None,
    ) -> None:
        """Connects on first use.

        Args:
            endpoint: the server's address.
            on_lost: called when the server does not answer; raises an error if the cause is known.
            timeout_seconds: maximum time for one answer.
            ensure: called before each request; restarts a server that was stopped.
        """
        self.endpoint = endpoint
        self.completions: list[Completion] = []
        self._connection = Connection(endpoint, on_lost, timeout_seconds, ensure)
        self._on_lost = on_lost
        self._timeout_seconds = timeout_seconds
        self._ensure = ensure
        self._disposable_requests = 0
        self._counting = threading.Lock()
        self._sends_uuids = True

    @property
    def requests(self) -> int:
        """Number of requests sent so far, including those of disposable clients."""
        return self._connection.requests + self._disposable_requests

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def complete(
        self, case: Case, sampling: Sampling | None = None, *, cold: bool = False
    ) -> Completion:
        """The answer to a case; greedy by default.

        Args:
            case: the request.
            sampling: the sampling parameters.
            cold: True to make the server compute the images and the prompt again (`cold`).

        Raises:
            ConfigurationError: if the server rejects the API key.
            ServerError: if the server rejects the request or cannot be reached.
        """
        return require_answer(case.id, self.ask(case, sampling, cold=cold))

    def ask(
        self, case: Case, sampling: Sampling | None = None, *, cold: bool = False
    ) -> Completion | Refusal:
        """The answer to a case, or the HTTP error."""
        sampling = sampling or Sampling(max_tokens=case.max_tokens)
        if not cold:
            answers = self.ask_several(case, sampling)
        else:
            sampling = dataclasses.replace(sampling, cache_salt=new_salt())
            answers = self._send_cold(case, lambda chat: self.send(chat, case.id, sampling))
        return first_reply(answers)

    def ask_several(
        self, case: Case, sampling: Sampling | None = None
    ) -> tuple[Completion, ...] | Refusal:
        """All `sampling.n` answers to a case, or the HTTP error."""
        return self.send(messages(case), case.id, sampling or Sampling(max_tokens=case.max_tokens))

    def send(
        self,
        chat: Chat,
        case_id: str,
        sampling: Sampling,
        fields: Mapping[str, Any] | None = None,
    ) -> tuple[Completion, ...] | Refusal:
        """The answers to any list of chat messages, or the HTTP error.

        Args:
            chat: the messages.
            case_id: the name of the request in messages.
            sampling: the sampling parameters.
            fields: further fields of the request.

        Raises:
            ServerError: if the server cannot be reached, or does not answer in time.
        """
        answers = self._send(chat, case_id, sampling, fields)
        if not isinstance(answers, Refusal):
            self.completions += answers
        return answers

    def _send(
        self,
        chat: Chat,
        case_id: str,
        sampling: Sampling,
        extra_body: Mapping[str, Any] | None = None,
    ) -> tuple[Completion, ...] | Refusal:
        since = time.perf_counter()
        try:
            reply = self._connection.complete(chat, sampling, extra_body)
        except openai.APIStatusError as error:
            return refusal(error.response)
        return completions(reply, case_id, time.perf_counter() - since)

    def ask_with(self, case: Case, fields: Mapping[str, Any]) -> Completion | Refusal:
        """The answer to a case whose request has further fields, or the HTTP error.

        It is greedy unless a field says otherwise. Its prompt is computed again, but the embedding
        of an image may come from the cache. It is not among `completions`: a parameter may make any
        text of an answer.

        Raises:
            ServerError: if the server cannot be reached.
        """
        return first_reply(self.ask_all_with(case, fields))

    def ask_all_with(
        self, case: Case, fields: Mapping[str, Any]
    ) -> tuple[Completion, ...] | Refusal:
        """The answers that `ask_with` gives the first of: several if a field `n` asks for them."""
        return self._send(messages(case), case.id, _uncached(case), fields)

    def stream_all_with(self, case: Case, fields: Mapping[str, Any]) -> tuple[Completion, ...]:
        """The answers to a case whose request has further fields, streamed and joined.

        Raises:
            ServerError: if the server rejects the request or the stream breaks off.
        """
        return self._stream(case.id, messages(case), _uncached(case), fields)

    def cold_chat(self, case: Case) -> Chat:
        """The messages of a case whose images and clips are in no cache.

        Sent again, they may be found in a cache.
        """
        return messages(case, self._acceptable(cold_part))

    @contextlib.contextmanager
    def open_stream(
        self,
        chat: Chat,
        case_id: str,
        sampling: Sampling,
        fields: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[Iterator[Any]]:
        """The chunks of an answer while the server generates it.

        The connection is closed at the end of the context, whether the answer has ended or not.

        Args:
            chat: the messages.
            case_id: the name of the request in messages.
            sampling: the sampling parameters.
            fields: further fields of the request.
            options: further arguments of `chat.completions.create`.

        Raises:
            ServerError: if the server rejects the request or, while the chunks are read, the
                stream breaks off.
        """
        options |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            chunks = self._connection.complete(chat, sampling, fields, **options)
        except openai.APIStatusError as error:
            raise ServerError(f"{case_id}, streamed: {refusal(error.response)}") from error
        with contextlib.closing(chunks):
            yield _unbroken(chunks, case_id)

    def stream(
        self, case: Case, sampling: Sampling | None = None, *, bare: bool = False
    ) -> Completion:
        """The answer to a case, streamed and joined; greedy by default.

        Args:
            case: the request.
            sampling: the sampling parameters.
            bare: True to request no log-probabilities, for time measurements.

        Raises:
            ServerError: if the server rejects the request or the stream breaks off.
        """
        sampling = sampling or Sampling(max_tokens=case.max_tokens)
        options = BARE if bare else {}
        answer, *_ = self._stream(case.id, messages(case), sampling, None, **options)
        self.completions.append(answer)
        return answer

    def stream_cold(self, case: Case) -> Completion:
        """The greedy answer to a case, cold, streamed and joined.

        Raises:
            ServerError: if the server rejects the request or the stream breaks off.
        """
        answer, *_ = self._stream(case.id, self.cold_chat(case), _uncached(case), None)
        self.completions.append(answer)
        return answer

    def _stream(
        self,
        case_id: str,
        chat: Chat,
        sampling: Sampling,
        fields: Mapping[str, Any] | None,
        **options: Any,
    ) -> tuple[Completion, ...]:
        since = time.perf_counter()
        usage = None
        answers = StreamedAnswers((fields or {}).get("n", sampling.n))
        with self.open_stream(chat, case_id, sampling, fields, **options) as chunks:
            for chunk in chunks:
                usage = usage_of(chunk.usage) or usage
                for choice in chunk.choices:
                    answers.add(choice, time.perf_counter() - since)
        return answers.completions(case_id, usage, time.perf_counter() - since)

    def ask_together(
        self, cases: Sequence[Case], sampling: Sampling | None = None, interval: float = 0.0
    ) -> tuple[Completion, ...]:
        """The answers to cases that are asked at one time, and cold; greedy by default.

        Args:
            cases: the requests.
            sampling: the sampling parameters.
            interval: seconds from one request to the next; 0 to send all at one moment.

        Raises:
            ServerError: if the server rejects one of them.
        """

        def ask(place: int, case: Case) -> Completion:
            time.sleep(place * interval)
            return self.complete(case, sampling, cold=True)

        with ThreadPoolExecutor(len(cases)) as pool:
            return tuple(pool.map(ask, range(len(cases)), cases))

    def stream_together(self, cases: Sequence[Case]) -> tuple[Completion, ...]:
        """The greedy answers to cases that are asked at one moment, cold, each one streamed.

        Raises:
            ServerError: if the server rejects one of them or its stream breaks off.
        """
        with ThreadPoolExecutor(len(cases)) as pool:
            return tuple(pool.map(self.stream_cold, cases))

    def force(self, case: Case, answer: str, token_ids: Sequence[int]) -> Forced:
        """The served model's log-probabilities of a given (forced) answer; the request is cold.

        Args:
            case: the request.
            answer: the text of the forced answer.
            token_ids: the expected tokens of that text.

        Raises:
            PreconditionError: if the server returns no prompt log-probabilities, or tokenizes the
                text differently.
            ServerError: if the server rejects the request.
        """
        reply = self.ask_forced(case, answer, token_ids)
        if isinstance(reply, Refusal):
            raise ServerError(
                f"{case.id}: the server answered HTTP {reply.status} to a forced answer: "
                f"{reply.message}"
            )
        return reply

    def ask_forced(
        self,
        case: Case,
        answer: str,
        token_ids: Sequence[int],
        change: Callable[[Part], Part] = cold_part,
    ) -> Forced | Refusal:
        """The log-probabilities of a forced answer, as `force` gives them, or the HTTP error.

        Requests `FORCED_TOKENS` tokens per position, or 20, vLLM's default maximum, if the server
        rejects that.

        Args:
            case: the request.
            answer: the text of the forced answer.
            token_ids: the expected tokens of that text.
            change: changes each image and video part, so that no cache contains it.

        Raises:
            PreconditionError: as `force`.
        """
        for count in (FORCED_TOKENS, TOP_LOGPROBS):
            reply = self._send_cold(case, partial(self._force, answer, count), change)
            if not isinstance(reply, Refusal):
                return logprobs.forced(case.id, reply.model_extra or {}, tuple(token_ids), count)
            if reply.status >= 500:  # a server closes the connection after an exception
                break
        return reply

    def _force(self, answer: str, count: int, chat: Chat) -> Any | Refusal:
        forced = [*chat, {"role": "assistant", "content": answer}]
        fields = {**_CONTINUE, "prompt_logprobs": count}
        sampling = Sampling(max_tokens=1, cache_salt=new_salt())
        try:
            return self._connection.complete(forced, sampling, extra_body=fields)
        except openai.APIStatusError as error:
            return refusal(error.response)

    def long_answer(self, case: Case, tokens: int) -> Completion:
        """The greedy answer to a case, which goes on behind its end up to a number of tokens.

        It is not among `completions`: what follows the end of an answer may be any text.

        Raises:
            ServerError: if the server rejects the request or cannot be reached.
        """
        sampling = Sampling(max_tokens=tokens)
        answers = self._send(messages(case), case.id, sampling, {"ignore_eos": True})
        return require_answer(case.id, first_reply(answers))

    def long_stream(self, case: Case, tokens: int) -> Completion:
        """The greedy answer to a case, of a number of tokens, streamed and joined.

        It goes on behind its end, and no cache has its prompt and images.
        """
        return self.stream_chat(case.id, self.cold_chat(case), tokens)

    def stream_chat(self, case_id: str, chat: Chat, tokens: int) -> Completion:
        """The greedy answer to messages, of a number of tokens, streamed and joined.

        As `long_stream`, but the messages are made before, so that their making takes no time.
        """
        sampling = Sampling(max_tokens=tokens, cache_salt=new_salt())
        answer, *_ = self._stream(case_id, chat, sampling, {"ignore_eos": True}, **BARE)
        return answer

    def score(self, case_id: str, prompt: Sequence[int], answer: Sequence[int]) -> Forced:
        """The served model's log-probabilities of tokens, computed in one pass.

        Args:
            case_id: the name of the request in messages.
            prompt: the prompt's tokens, without images.
            answer: the tokens behind it.

        Raises:
            PreconditionError: if the server returns no log-probabilities.
            ServerError: if the server rejects the request or cannot be reached.
        """
        token_ids = [*prompt, *answer]
        try:
            reply = self._connection.score(token_ids, TOP_LOGPROBS)
        except openai.APIStatusError as error:
            raise ServerError(f"{case_id}: {refusal(error.response)}") from error
        found = getattr(reply.choices[0], "prompt_logprobs", None)
        sides = {"prompt_logprobs": found, "prompt_token_ids": token_ids}
        return logprobs.forced(case_id, sides, tuple(answer), TOP_LOGPROBS)

    def _send_cold(
        self,
        case: Case,
        send: Callable[[Chat], _Reply],
        change: Callable[[Part], Part] = cold_part,
    ) -> _Reply:
        """Sends a case's cold messages, without uuids if the server does not accept them."""
        if self._sends_uuids:
            reply = send(messages(case, change))
            if not (isinstance(reply, Refusal) and "uuid" in reply.message):
                return reply
            self._sends_uuids = False
        return send(messages(case, self._acceptable(change)))

    def _acceptable(self, change: Callable[[Part], Part]) -> Callable[[Part], Part]:
        """A change of parts, without uuids if the server does not accept them."""
        return change if self._sends_uuids else lambda part: without_uuid(change(part))

    def prompt(self, case: Case) -> Completion | Refusal:
        """An answer of one token, for the tokens of its prompt, or the HTTP error.

        It is not among `completions`: a single token may be any text.
        """
        answers = self._send(messages(case), case.id, Sampling(max_tokens=1))
        return first_reply(answers)

    def prompt_tokens(self, case: Case) -> int | None:
        """Number of tokens of a prompt; None if the server rejects it or does not report it."""
        answer = self.prompt(case)
        return None if isinstance(answer, Refusal) else answer.prompt_tokens

    def models(self) -> tuple[str, ...] | Refusal:
        """The model names that `/v1/models` lists, or the HTTP error."""
        return self._connection.models()

    def max_model_len(self) -> int | None:
        """Maximum tokens of a prompt with its answer, as `/v1/models` lists it; None if unknown."""
        return self._connection.max_model_len()

    def exchange(self, step: Step, words: Mapping[str, str]) -> Exchange:
        """Sends a request as it is and returns the reply as it is.

        Args:
            step: the request.
            words: the words of the body's template and what they stand for.
        """
        return self._connection.exchange(step, words)

    @contextlib.contextmanager
    def disposable(self, timeout_seconds: float | None = None) -> Iterator[Client]:
        """A client with its own connections, for requests after which a server may disconnect.

        Args:
            timeout_seconds: maximum time for one answer; by default that of this client.
        """
        seconds = timeout_seconds or self._timeout_seconds
        with contextlib.closing(
            Client(self.endpoint, self._on_lost, seconds, self._ensure)
        ) as other:
            try:
                yield other
            finally:
                with self._counting:
                    self._disposable_requests += other.requests


def _unbroken(chunks: Iterator[Any], case_id: str) -> Iterator[Any]:
    """The chunks of a stream; raises ServerError if it breaks off."""
    try:
        yield from chunks
    except Exception as error:  # which HTTP library raises depends on the version of openai
        raise ServerError(f"{case_id}: the stream broke off: {error}") from error


def _uncached(case: Case) -> Sampling:
    """Greedy sampling whose prompt shares no block of the prefix cache with another request."""
    return Sampling(max_tokens=case.max_tokens, cache_salt=new_salt())
