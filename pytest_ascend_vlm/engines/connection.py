"""A connection to an OpenAI-compatible server that counts its requests and explains failures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import openai

from ..errors import ServerError
from ..observation.answers import TOP_LOGPROBS, Refusal
from ..observation.exchange import Exchange
from ..spec.case import Sampling
from ..spec.step import Step
from .endpoint import Endpoint
from .exchange import send
from .neutral import NEUTRAL
from .replies import refusal

_WITH_LOGPROBS = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
BARE: Mapping[str, Any] = dict.fromkeys(_WITH_LOGPROBS, openai.NOT_GIVEN)
"""Options that leave out the log-probabilities."""


class Connection:
    """The HTTP connections to one server, opened on first use.

    Every completion requests token ids and the 20 most likely tokens at each position (vLLM's
    default maximum), because an answer's text alone hides most numeric defects. It sets every
    sampling parameter, so that the settings of the checkpoint change no answer.

    Attributes:
        endpoint: the server's address.
        requests: number of requests sent so far.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        on_lost: Callable[[], None],
        timeout_seconds: float,
        ensure: Callable[[], None],
    ) -> None:
        """Opens no connection yet.

        Args:
            endpoint: the server's address.
            on_lost: called when the server does not answer; raises an error if the cause is known.
            timeout_seconds: maximum time for one answer.
            ensure: called before each request; restarts a server that was stopped.
        """
        self.endpoint = endpoint
        self.requests = 0
        self._counting = threading.Lock()
        self._on_lost = on_lost
        self._ensure = ensure
        # The openai library has limits of its own httpx.
        limits_of_openai = type(openai.DEFAULT_CONNECTION_LIMITS)
        self._openai = openai.OpenAI(
            base_url=f"{endpoint.url}/v1",
            api_key=endpoint.api_key,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                timeout=timeout_seconds,
                verify=endpoint.certificates,
                trust_env=not endpoint.is_local,
                # vLLM closes a connection that was idle for 5 s, and up to 0.23 behind the reply
                # to an exception. A request that meets this is lost, so each has its own one.
                limits=limits_of_openai(max_keepalive_connections=0),
            ),
        )
        self._http = httpx.Client(
            base_url=endpoint.url,
            headers={"Authorization": f"Bearer {endpoint.api_key}"},
            timeout=timeout_seconds,
            verify=endpoint.certificates,
            trust_env=not endpoint.is_local,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._openai.close()
        self._http.close()

    def complete(
        self,
        chat: Sequence[Mapping[str, Any]],
        sampling: Sampling,
        extra_body: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """The reply to a chat, as an object of the openai library.

        Args:
            chat: the messages.
            sampling: the sampling parameters.
            extra_body: request fields that the openai library does not know.
            options: further arguments of `chat.completions.create`.

        Raises:
            openai.APIStatusError: if the server rejects the request.
            ServerError: if the server cannot be reached.
        """
        self._begin_request()
        extra = {
            **NEUTRAL,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **(extra_body or {}),
        }
        if sampling.cache_salt is not None:
            extra.setdefault("cache_salt", sampling.cache_salt)
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

    def score(self, token_ids: Sequence[int], top_k: int) -> Any:
        """The reply to a prompt of tokens, as an object of the openai library.

        It has the `top_k` most likely tokens at each position of the prompt.

        Raises:
            openai.APIStatusError: if the server rejects the request.
            ServerError: if the server cannot be reached.
        """
        self._begin_request()
        try:
            return self._openai.completions.create(
                model=self.endpoint.served_name,
                prompt=list(token_ids),
                max_tokens=1,
                temperature=0.0,
                extra_body={**NEUTRAL, "prompt_logprobs": top_k},
            )
        except openai.APIConnectionError as error:
            raise self._lost(error) from error

    def models(self) -> tuple[str, ...] | Refusal:
        """The model names that `/v1/models` lists, or the HTTP error."""
        self._begin_request()
        try:
            return tuple(str(getattr(model, "id", model)) for model in self._openai.models.list())
        except openai.APIStatusError as error:
            return refusal(error.response)
        except openai.APIConnectionError as error:
            raise self._lost(error) from error

    def max_model_len(self) -> int | None:
        """`max_model_len` of the served model in `/v1/models`; None if the server omits it."""
        self._begin_request()
        try:
            listed = {model.id: model for model in self._openai.models.list()}
        except openai.APIStatusError:
            return None
        except openai.APIConnectionError as error:
            raise self._lost(error) from error
        length = getattr(listed.get(self.endpoint.served_name), "max_model_len", None)
        return length if isinstance(length, int) else None

    def exchange(self, step: Step, words: Mapping[str, str]) -> Exchange:
        """Sends a request as it is and returns the reply as it is.

        Args:
            step: the request.
            words: the words of the body's template and what they stand for.
        """
        self._begin_request()
        return Exchange(step, *send(self._http, step, words))

    def _begin_request(self) -> None:
        self._ensure()
        with self._counting:
            self.requests += 1

    def _lost(self, error: Exception) -> ServerError:
        # The connections of a server that died are closed. So a server that is late has not died.
        if not isinstance(error, (openai.APITimeoutError, httpx.TimeoutException)):
            self._on_lost()
        cause = str(error.__cause__ or error).rstrip(".")
        return ServerError(
            f"no answer from {self.endpoint.url}: {cause}. The server may hang or may have stopped."
        )
