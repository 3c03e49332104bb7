"""Asks an OpenAI-compatible server and keeps what it answered.

Every completion asks for token ids and the 20 most likely tokens at each position (vLLM's default
maximum), because an answer's text alone hides most numeric defects.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import mimetypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import httpx
import openai

from ..errors import ConfigurationError, ServerError
from ..observation.answers import (
    TOP_LOGPROBS,
    Completion,
    Refusal,
    TopLogprobs,
    Usage,
    require_answer,
)
from ..observation.numerics import FORCED_TOKENS, Forced
from ..spec.case import Case, Sampling
from . import logprobs
from .address import KEY_VARIABLE
from .endpoint import Endpoint


class _Response(Protocol):
    """What httpx's response and that of openai's own HTTP library have in common."""

    status_code: int

    @property
    def text(self) -> str:
        """The body."""

    def json(self) -> Any:
        """The body, parsed."""


_SHOWN_BODY = 300
_WITH_LOGPROBS = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
_BARE: dict[str, Any] = dict.fromkeys(_WITH_LOGPROBS, openai.NOT_GIVEN)
_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


class Client:
    """A connection to one served model.

    Attributes:
        requests: number of requests sent so far.
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
            on_lost: called when the server does not answer; raises if it can say why.
            timeout_seconds: how long one answer may take.
            ensure: called before each request; starts a server again that was stopped meanwhile.
        """
        self.endpoint = endpoint
        self._on_lost = on_lost
        self._ensure = ensure
        self.requests = 0
        self.completions: list[Completion] = []
        self._openai = openai.OpenAI(
            base_url=f"{endpoint.url}/v1",
            api_key=endpoint.api_key,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                timeout=timeout_seconds, trust_env=not endpoint.is_local
            ),
        )
        self._http = httpx.Client(
            base_url=endpoint.url,
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            timeout=timeout_seconds,
            trust_env=not endpoint.is_local,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._openai.close()
        self._http.close()

    def complete(self, case: Case, sampling: Sampling | None = None) -> Completion:
        """The answer to a case; greedy unless told otherwise.

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
            reply = self._create(chat, sampling)
        except openai.APIStatusError as error:
            return _refusal(error.response)
        seconds = time.perf_counter() - since
        choices = getattr(reply, "choices", None)
        if not choices or any(choice.message is None for choice in choices):
            return Refusal(200, f"no completion: {str(reply)[:_SHOWN_BODY]}", is_json_error=False)
        answers = tuple(_completion(choice, case_id, reply, seconds) for choice in choices)
        self.completions += answers
        return answers

    @contextlib.contextmanager
    def disposable(self, endpoint: Endpoint | None = None) -> Iterator[Client]:
        """A client with connections of its own, for requests behind which a server may hang up."""
        another = Client(endpoint or self.endpoint, self._on_lost, ensure=self._ensure)
        with contextlib.closing(another) as other:
            try:
                yield other
            finally:
                self.requests += other.requests

    def prompt_tokens(self, case: Case) -> int | None:
        """How many tokens a prompt has; None where the server refuses it or does not tell."""
        try:
            reply = self._create(messages(case), Sampling(max_tokens=1))
        except openai.APIStatusError:
            return None
        ids = _prompt_token_ids(reply)
        if ids is not None:
            return len(ids)
        return int(reply.usage.prompt_tokens) if reply.usage else None

    def ask_for_model(self, name: str, case: Case) -> Completion | Refusal:
        """The answer to a case that is asked of a model of another name."""
        with self.disposable(dataclasses.replace(self.endpoint, served_name=name)) as other:
            return other.ask(case)

    def send_image(
        self, data: bytes, prompt: str, sampling: Sampling
    ) -> tuple[Completion, ...] | Refusal:
        """The answers to bytes that claim to be a PNG, or the HTTP error that came instead."""
        text = {"type": "text", "text": prompt}
        content = [image_part(data, "image/png"), text]
        return self.send([{"role": "user", "content": content}], "bad image", sampling)

    def stream(
        self, case: Case, sampling: Sampling | None = None, *, bare: bool = False
    ) -> Completion:
        """The answer to a case, streamed and joined again; greedy unless told otherwise.

        Args:
            case: what is asked.
            sampling: how the answer is generated.
            bare: leaves out the log-probabilities, as one does who measures time.

        Raises:
            ServerError: the server refused the request or broke off.
        """
        since = time.perf_counter()
        first, finish, usage = None, None, None
        pieces: list[str] = []
        sampling = sampling or Sampling(max_tokens=case.max_tokens)
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        try:
            for chunk in self._create(
                messages(case), sampling, None, **options, **(_BARE if bare else {})
            ):
                usage = _usage(chunk.usage) or usage
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
        """What the served model thinks of an answer that it is forced to give.

        Asks for `FORCED_TOKENS` at each position; of a server that lists no more than vLLM's
        default of 20, for those.

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
            return self._create(chat, Sampling(max_tokens=1), extra_body=wanted)
        except openai.APIStatusError as error:
            return _refusal(error.response)

    def models(self) -> tuple[str, ...] | Refusal:
        """The names that `/v1/models` lists, or the HTTP error that came instead."""
        self._count()
        try:
            return tuple(model.id for model in self._openai.models.list())
        except openai.APIStatusError as error:
            return _refusal(error.response)
        except openai.APIConnectionError as error:
            raise self._lost(error) from error

    def post(self, body: bytes) -> Refusal:
        """Sends bytes that are no valid request to the chat endpoint."""
        self._count()
        headers = {"Content-Type": "application/json"}
        try:
            reply = self._http.post("/v1/chat/completions", content=body, headers=headers)
        except httpx.TransportError as error:
            raise self._lost(error) from error
        return _refusal(reply)

    def _count(self) -> None:
        self._ensure()
        self.requests += 1

    def _lost(self, error: Exception) -> ServerError:
        self._on_lost()
        cause = str(error.__cause__ or error).rstrip(".")
        return ServerError(
            f"no answer from {self.endpoint.url}: {cause}. The server may hang, or be gone."
        )

    def _create(
        self,
        chat: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        self._count()
        extra = {"return_token_ids": True, "return_tokens_as_token_ids": True, **(extra_body or {})}
        if sampling.cache_salt is not None:
            extra["cache_salt"] = sampling.cache_salt
        try:
            return self._openai.chat.completions.create(
                model=self.endpoint.served_name,
                messages=chat,  # type: ignore[arg-type]
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                seed=sampling.seed,
                stop=sampling.stop,
                n=sampling.n,
                extra_body=extra,
                **{**_WITH_LOGPROBS, **options},
            )
        except openai.APIConnectionError as error:
            raise self._lost(error) from error


def messages(case: Case) -> list[dict[str, Any]]:
    """A case as chat messages: images and clips as data URLs, then the text."""
    images = [image_part(path.read_bytes(), _mime(path)) for path in case.images]
    videos = [_video_part(path.read_bytes(), _mime(path)) for path in case.videos]
    text = {"type": "text", "text": case.prompt}
    media = [*images, *videos]
    return [{"role": "user", "content": [*media, text] if media else case.prompt}]


def image_part(data: bytes, mime: str) -> dict[str, Any]:
    """An image as a part of a message."""
    return {"type": "image_url", "image_url": {"url": _data_url(data, mime)}}


def _video_part(data: bytes, mime: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": _data_url(data, mime)}}


def _data_url(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _mime(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _completion(choice: Any, case_id: str, reply: Any, seconds: float) -> Completion:
    ids = getattr(choice, "token_ids", None)
    return Completion(
        case_id=case_id,
        text=choice.message.content or "",
        token_ids=tuple(ids) if ids is not None else None,
        finish_reason=choice.finish_reason,
        usage=_usage(reply.usage),
        top=_top_logprobs(choice),
        seconds=seconds,
        prompt_token_ids=_prompt_token_ids(reply),
    )


def _prompt_token_ids(reply: Any) -> tuple[int, ...] | None:
    ids = getattr(reply, "prompt_token_ids", None)
    return tuple(ids) if ids else None


def _usage(usage: Any) -> Usage | None:
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        details.cached_tokens if details else None,
    )


def _top_logprobs(choice: Any) -> TopLogprobs | None:
    if choice.logprobs is None or not choice.logprobs.content:
        return None
    positions = [
        {_token_id(entry.token): entry.logprob for entry in position.top_logprobs}
        for position in choice.logprobs.content
    ]
    return (
        None if any(-1 in position for position in positions) else logprobs.top_logprobs(positions)
    )


def _token_id(name: str) -> int:
    """`token_id:123` -> 123; -1 where the server gives the token's text instead."""
    prefix, _, number = name.partition(":")
    return int(number) if prefix == "token_id" and number.isdigit() else -1


def _refusal(response: _Response) -> Refusal:
    if response.status_code == 401:
        raise ConfigurationError(
            f"the server refuses the key that it was asked with (HTTP 401): set {KEY_VARIABLE}"
        )
    try:
        body = response.json()
    except json.JSONDecodeError:
        body = None
    is_error = isinstance(body, dict) and ("error" in body or body.get("object") == "error")
    return Refusal(response.status_code, response.text[:_SHOWN_BODY], is_error)
