"""Requests that go wrong: too long, left by their client, with a file or a URL that is bad."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PreconditionError, ServerError
from ..observation.answers import Completion, Refusal, first_reply, reply_or_refusal
from ..observation.recovery import Incident
from ..spec.case import Case, Sampling
from ..spec.thresholds import BEGINNING_TOKENS, LEAVING, URL_SECONDS
from .image_urls import require_fetched, require_local
from .pictures import longest_prompt

if TYPE_CHECKING:
    from ..engines.client import Chat, Client
    from ..engines.endpoint import Server
    from ..engines.messages import Part
    from ..spec.model import ModelSpec

ANSWER_SECONDS = 60.0
"""Maximum time for the beginning of an answer; a server that takes longer hangs."""

_ENDLESS = {"ignore_eos": True}
_MOMENT_SECONDS = 1.0
_FEW_TOKENS = 5
_WORD, _COUNTED_WORDS = "a ", 100
_GATHERING_SECONDS = 10.0


@dataclass(frozen=True)
class Marked:
    """A request about an image that is in no cache. Sent again, it may be found in one.

    Attributes:
        chat: its messages.
        salt: its `cache_salt`.
    """

    chat: Chat
    salt: str


@dataclass(frozen=True)
class ImageRequests:
    """Makes requests about one image, and sends good and bad ones.

    Attributes:
        model: the model.
        server: its server.
        client: its client.
        text_case: a case without an image.
        image_case: the case with the image.
        clip_case: a case with a clip; None if the model takes none.
    """

    model: ModelSpec
    server: Server
    client: Client
    text_case: Case
    image_case: Case
    clip_case: Case | None

    def new(self) -> Marked:
        """A request that no cache knows."""
        return self.about(self.image_case)

    def about(self, case: Case) -> Marked:
        """The same about another image, of the same size."""
        from ..engines.cold import new_salt

        return Marked(self.client.cold_chat(case), new_salt())

    def ask(self, request: Marked) -> Completion | Refusal:
        """The beginning of the answer to a request."""
        return self._reply(request, BEGINNING_TOKENS, ANSWER_SECONDS)

    def ask_text(self) -> Completion | Refusal:
        """The beginning of the answer to a text."""
        sampling = Sampling(_FEW_TOKENS)
        return reply_or_refusal(lambda: self.client.ask(self.text_case, sampling, cold=True))

    def refused(self, request: Marked) -> Incident:
        """Sends a bad request, and waits for the reply."""
        since = time.monotonic()
        reply = self._reply(request, _FEW_TOKENS, URL_SECONDS)
        return Incident(reply, time.monotonic() - since)

    @contextlib.contextmanager
    def open(self, request: Marked, tokens: int | None = None) -> Iterator[Iterator[Any]]:
        """The chunks of an answer that does not end by itself; the client leaves in the end.

        Args:
            request: the request.
            tokens: the length of the answer; half of max_model_len by default.
        """
        from ..engines.connection import BARE

        sampling = Sampling(tokens, cache_salt=request.salt) if tokens else self._endless(request)
        case_id = self.image_case.id
        with (
            self.client.disposable(timeout_seconds=ANSWER_SECONDS) as other,
            other.open_stream(request.chat, case_id, sampling, _ENDLESS, **BARE) as chunks,
        ):
            yield chunks

    def leave(self, request: Marked) -> None:
        """Asks for an answer that does not end by itself and is not streamed, and leaves soon.

        Raises:
            PreconditionError: the server replied before, so nothing is shown.
        """
        case_id, sampling = self.image_case.id, self._endless(request)
        with self.client.disposable(timeout_seconds=_MOMENT_SECONDS) as other:
            try:
                reply = other.send(request.chat, case_id, sampling, _ENDLESS)
            except ServerError:  # no answer in time; the next request sees a death
                return
        told = str(reply) if isinstance(reply, Refusal) else "the whole answer"
        raise PreconditionError(
            f"{case_id}: a client that leaves after {_MOMENT_SECONDS:g} s got {told} before, so it "
            f"did not leave. The answer has {sampling.max_tokens} tokens; a larger max_model_len "
            "makes it longer."
        )

    @functools.cached_property
    def max_model_len(self) -> int:
        """Maximum tokens of a prompt with its answer.

        Raises:
            PreconditionError: it is unknown.
        """
        if (limit := longest_prompt(self.client, self.model)) is None:
            raise PreconditionError(
                "the maximum length of a prompt is unknown, so no request can be made that is too "
                "long: /v1/models lists no max_model_len. Declare serve={'max_model_len': N}."
            )
        return limit

    @functools.cached_property
    def text_without_room(self) -> str:
        """A text that fits into the prompt, and leaves room for half of the image's tokens.

        Raises:
            PreconditionError: the server does not report the lengths of prompts.
        """
        text_only = self.image_case.without_media()
        words = dataclasses.replace(text_only, prompt=text_only.prompt + _WORD * _COUNTED_WORDS)
        counts = [self.client.prompt_tokens(case) for case in (text_only, words, self.image_case)]
        if None in counts:
            raise PreconditionError(
                "the server does not report the number of prompt tokens, so no request can be made "
                "that is just too long. A proxy in between may drop `usage`."
            )
        plain, longer, whole = (count or 0 for count in counts)
        room = self.max_model_len - (plain + whole) / 2
        return _WORD * int(room * _COUNTED_WORDS / max(longer - plain, 1))

    def _endless(self, request: Marked) -> Sampling:
        return Sampling(self.max_model_len // 2, cache_salt=request.salt)

    def _reply(self, request: Marked, tokens: int, seconds: float) -> Completion | Refusal:
        sampling = Sampling(tokens, cache_salt=request.salt)

        def send() -> Completion | Refusal:
            with self.client.disposable(timeout_seconds=seconds) as other:
                replies = other.send(request.chat, self.image_case.id, sampling)
            return first_reply(replies)

        return reply_or_refusal(send)


# --- what goes wrong -----------------------------------------------------------------------------

BadRequest = Callable[[ImageRequests, Marked], Incident]
"""Sends the bad request that is made of a good one."""


def _too_long(requests: ImageRequests, request: Marked) -> Incident:
    *_, last = filter(_is_text, request.chat[-1]["content"])
    longer = {**last, "text": last["text"] + requests.text_without_room}
    return requests.refused(_changed(request, lambda part: longer if part is last else part))


def _leaves(requests: ImageRequests, request: Marked) -> Incident:
    """The client leaves after the first token."""
    with requests.open(request) as chunks:
        next(chunks)
    return Incident()


def _leaves_early(requests: ImageRequests, request: Marked) -> Incident:
    """The client of an answer that is not streamed leaves before the answer comes."""
    requests.leave(request)
    return Incident()


def _many_leave(requests: ImageRequests, request: Marked) -> Incident:
    """Clients leave at one moment; some of their requests are computed, and others wait."""
    all_there = threading.Barrier(LEAVING)

    def leave(one: Marked) -> None:
        with requests.open(one), contextlib.suppress(threading.BrokenBarrierError):
            all_there.wait(_GATHERING_SECONDS)  # a server may begin few answers at one time

    with ThreadPoolExecutor(LEAVING) as pool:
        others = [requests.new() for _ in range(LEAVING - 1)]
        list(pool.map(leave, [*others, request]))
    return Incident()


def _refuses(requests: ImageRequests, request: Marked) -> Incident:
    """Nobody listens at the URL."""
    from ..engines.file_server import refusing_url

    require_local(requests.server)
    with refusing_url() as url:
        return requests.refused(_at(request, url))


def _missing(requests: ImageRequests, request: Marked) -> Incident:
    """The URL answers 404."""
    from ..engines.file_server import serve_file

    require_local(requests.server)
    with serve_file(b"") as files:
        incident = requests.refused(_at(request, files.missing_url))
    require_fetched(requests.server, files.requests)
    return incident


def _hangs(requests: ImageRequests, request: Marked) -> Incident:
    """The URL does not answer; another client sends a text meanwhile."""
    from ..engines.file_server import serve_file

    require_local(requests.server)
    with serve_file(b"") as files, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.refused, _at(request, files.hanging_url))
        files.keeps_waiting.wait(URL_SECONDS)
        since = time.monotonic()
        meanwhile = requests.ask_text()
        seconds = time.monotonic() - since
        incident = waiting.result()
    require_fetched(requests.server, files.requests)
    return dataclasses.replace(incident, meanwhile=meanwhile, meanwhile_seconds=seconds)


def _corrupt(requests: ImageRequests, request: Marked) -> Incident:
    """The second half of a file is missing: of a clip if the model takes clips."""
    from ..engines.messages import messages, with_data

    def cut(part: Part) -> Part:
        return with_data(part, lambda data: data[: len(data) // 2])

    if requests.clip_case is not None:
        return requests.refused(Marked(messages(requests.clip_case, cut), request.salt))
    return requests.refused(_changed(request, lambda part: part if _is_text(part) else cut(part)))


BAD_REQUESTS: Mapping[str, BadRequest] = {
    "too_long": _too_long,
    "leaves": _leaves,
    "leaves_early": _leaves_early,
    "twenty_leave": _many_leave,
    "url_refuses": _refuses,
    "url_hangs": _hangs,
    "url_missing": _missing,
    "corrupt_file": _corrupt,
}
"""Name of a row of recovery.request -> what goes wrong."""

URLS = frozenset(name for name in BAD_REQUESTS if name.startswith("url_"))
"""The rows for which the server has to fetch an image."""


def _at(request: Marked, url: str) -> Marked:
    """The request with a URL in place of the image."""
    return _changed(
        request, lambda part: part if _is_text(part) else {**part, "image_url": {"url": url}}
    )


def _changed(request: Marked, change: Callable[[Part], Part]) -> Marked:
    """The request with other parts in its last message."""
    *earlier, last = request.chat
    content = [change(part) for part in last["content"]]
    return dataclasses.replace(request, chat=[*earlier, {**last, "content": content}])


def _is_text(part: Part) -> bool:
    return bool(part["type"] == "text")
