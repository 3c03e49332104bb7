"""Asks the served model: one answer, several, streamed, together, or forced."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import openai

from ..errors import ServerError
from ..observation.answers import TOP_LOGPROBS, Completion, Refusal, require_answer
from ..observation.numerics import FORCED_TOKENS, Forced
from ..spec.case import Case, Sampling
from . import logprobs
from .connection import BARE, Connection
from .endpoint import Endpoint
from .messages import messages
from .replies import completions, prompt_token_ids, refusal, usage_of

_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


class Client:
    """The served model, as tests ask it.

    Attributes:
        endpoint: where its server listens.
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
            endpoint: where the server listens.
            on_lost: called when the server does not answer; raises if it knows why.
            timeout_seconds: how long one answer may take.
            ensure: called before each request; starts a server again that was stopped meanwhile.
        """
        self.endpoint = endpoint
        self.completions: list[Completion] = []
        self._connection = Connection(endpoint, on_lost, timeout_seconds, ensure)
        self._another: Callable[[Endpoint], Client] = partial(
            Client, on_lost=on_lost, timeout_seconds=timeout_seconds, ensure=ensure
        )
        self._requests_of_others = 0

    @property
    def requests(self) -> int:
        """Number of requests sent so far, those of disposable clients included."""
        return self._connection.requests + self._requests_of_others

    def close(self) -> None:
        """Closes the connections."""
        self._connection.close()

    def complete(self, case: Case, sampling: Sampling | None = None) -> Completion:
        """The answer to a case; greedy by default.

        Raises:
            ConfigurationError: the key is refused.
            ServerError: the server refused the request or could not be reached.
        """
        return require_answer(case.id, self.ask(case, sampling))

    def ask(self, case: Case, sampling: Sampling | None = None) -> Completion | Refusal:
        """The answer to a case, or the HTTP error that came instead."""
        answers = self.ask_several(case, sampling)
        return answers if isinstance(answers, Refusal) else answers[0]

    def ask_several(
        self, case: Case, sampling: Sampling | None = None
    ) -> tuple[Completion, ...] | Refusal:
        """All `sampling.n` answers to a case, or the HTTP error that came instead."""
        return self.send(messages(case), case.id, sampling or Sampling(max_tokens=case.max_tokens))

    def send(
        self, chat: Sequence[Mapping[str, Any]], case_id: str, sampling: Sampling
    ) -> tuple[Completion, ...] | Refusal:
        """The answers to a chat of any form, or the HTTP error that came instead."""
        since = time.perf_counter()
        try:
            reply = self._connection.complete(chat, sampling)
        except openai.APIStatusError as error:
            return refusal(error.response)
        answers = completions(reply, case_id, time.perf_counter() - since)
        if not isinstance(answers, Refusal):
            self.completions += answers
        return answers

    def stream(
        self, case: Case, sampling: Sampling | None = None, *, bare: bool = False
    ) -> Completion:
        """The answer to a case, streamed and joined again; greedy by default.

        Args:
            case: what is asked.
            sampling: how the answer is generated.
            bare: leaves out the log-probabilities, for a measurement of time.

        Raises:
            ServerError: the server refused the request or broke off.
        """
        since = time.perf_counter()
        first, finish, usage = None, None, None
        pieces: list[str] = []
        sampling = sampling or Sampling(max_tokens=case.max_tokens)
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        try:
            for chunk in self._connection.complete(
                messages(case), sampling, None, **options, **(BARE if bare else {})
            ):
                usage = usage_of(chunk.usage) or usage
                for choice in chunk.choices:
                    if choice.delta.content:
                        first = first or time.perf_counter() - since
                        pieces.append(choice.delta.content)
                    finish = choice.finish_reason or finish
        except ServerError:
            raise
        except Exception as error:  # the HTTP library below openai differs between its versions
            raise ServerError(f"{case.id}: the stream broke off: {error}") from error
        seconds = time.perf_counter() - since
        answer = Completion(case.id, "".join(pieces), None, finish, usage, None, seconds, first)
        self.completions.append(answer)
        return answer

    def ask_together(self, cases: Sequence[Case]) -> tuple[Completion, ...]:
        """The greedy answers to cases that are all sent at once.

        Raises:
            ServerError: the server refused one of them.
        """
        with ThreadPoolExecutor(len(cases)) as pool:
            return tuple(pool.map(self.complete, cases))

    def force(self, case: Case, answer: str, token_ids: Sequence[int]) -> Forced:
        """The log-probabilities that the served model gives an answer which it is forced to give.

        Asks for `FORCED_TOKENS` at each position; if the server lists no more than vLLM's default
        of 20, for those.

        Args:
            case: what the answer replies to.
            answer: the forced text.
            token_ids: the tokens that text has to become.

        Raises:
            PreconditionError: the server does not return prompt log-probabilities, or made other
                tokens of the text.
            ServerError: the server refused the request.
        """
        chat = [*messages(case), {"role": "assistant", "content": answer}]
        for count in (FORCED_TOKENS, TOP_LOGPROBS):
            reply = self._force(chat, count)
            if not isinstance(reply, Refusal):
                return logprobs.forced(case.id, reply.model_extra or {}, tuple(token_ids), count)
        raise ServerError(
            f"{case.id}: the server answered {reply.status} to a forced answer: {reply.message}"
        )

    def _force(self, chat: Sequence[Mapping[str, Any]], count: int) -> Any | Refusal:
        wanted = {**_CONTINUE, "prompt_logprobs": count}
        try:
            return self._connection.complete(chat, Sampling(max_tokens=1), extra_body=wanted)
        except openai.APIStatusError as error:
            return refusal(error.response)

    def prompt_tokens(self, case: Case) -> int | None:
        """How many tokens a prompt has; None where the server refuses it or does not report it."""
        try:
            reply = self._connection.complete(messages(case), Sampling(max_tokens=1))
        except openai.APIStatusError:
            return None
        ids = prompt_token_ids(reply)
        if ids is not None:
            return len(ids)
        return int(reply.usage.prompt_tokens) if reply.usage else None

    def models(self) -> tuple[str, ...] | Refusal:
        """The names that `/v1/models` lists, or the HTTP error that came instead."""
        return self._connection.models()

    def post(self, body: bytes) -> Refusal:
        """Sends bytes that are no valid request to the chat endpoint."""
        return self._connection.post(body)

    @contextlib.contextmanager
    def disposable(self, endpoint: Endpoint | None = None) -> Iterator[Client]:
        """A client with connections of its own, for requests after which a server may hang up."""
        with contextlib.closing(self._another(endpoint or self.endpoint)) as other:
            try:
                yield other
            finally:
                self._requests_of_others += other.requests
