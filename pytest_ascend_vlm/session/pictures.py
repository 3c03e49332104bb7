"""Requests with pictures of many sizes, each with the reply that the reference expects."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..observation.answers import Completion, Refusal, reply_or_refusal
from ..observation.pictures import Expected, LargestPage, LargestPageReplies, PictureReply
from ..spec.case import Case, Sampling
from ..spec.picture import Picture

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.transformers.model import Encoder
    from ..spec.model import ModelSpec
    from .run_logs import RunLogs

_ONE_TOKEN = Sampling(max_tokens=1)

_A4 = (210, 297)
_USUAL_HEIGHT = 2339  # an A4 page at 200 dpi
_TOP_HEIGHT = 7016  # an A4 page at 600 dpi
_ROUNDING = 64  # pixels; a processor rounds a side to patches


@dataclass(frozen=True)
class PictureRequests:
    """Sends pictures with the text of a case.

    Attributes:
        client: the client; a server that disconnects does not disturb other tests.
        encoder: the reference's processor.
        case: the case whose image each picture replaces.
        max_model_len: maximum tokens of a prompt with its answer; None if unknown.
        directory: existing directory for the pictures' files.
    """

    client: Client
    encoder: Encoder
    case: Case
    max_model_len: int | None
    directory: Path

    def __call__(self, picture: Picture) -> PictureReply:
        """The reply to a picture, and the expected reply."""
        from ..engines import pictures

        path = pictures.write(picture, self.directory)
        expected = self.expected(path, _ONE_TOKEN.max_tokens)
        got = self._reply(self.with_image(path))
        path.unlink()
        return PictureReply(picture, expected, got)

    def unchanged(self) -> Completion | Refusal:
        """The reply to the case itself."""
        return self._reply(self.case)

    def expected(self, image: Path, max_tokens: int) -> Expected:
        """What the reference's processor makes of a file, for an answer of some tokens."""
        try:
            prompt = self.encoder.prompt_token_ids(self.with_image(image))
        except Exception as error:  # a processor has no exception of its own for a bad picture
            return Expected((), f"the reference's processor refuses it: {error}")
        if self.max_model_len is not None and len(prompt) + max_tokens > self.max_model_len:
            return Expected(
                prompt,
                f"its prompt of {len(prompt)} tokens and {max_tokens} for the answer exceed "
                f"max_model_len {self.max_model_len}",
            )
        return Expected(prompt)

    def with_image(self, image: Path) -> Case:
        """The case with a file in the place of its image."""
        return dataclasses.replace(self.case, images=(image,))

    def ask_largest_page(self, max_tokens: int) -> LargestPageReplies:
        """The replies to two cold requests with the largest page."""
        from ..engines import pictures

        longest = math.inf if self.max_model_len is None else self.max_model_len - max_tokens
        page = largest_page(self._page_tokens, longest)
        file = self.directory / "largest-page.png"
        sheet = pictures.draw_pages(self.case.images[0], page.width, page.height)
        sheet.save(file, compress_level=1)
        case, sampling = self.with_image(file), Sampling(max_tokens)
        first, second = self._reply(case, sampling, cold=True), None
        if isinstance(first, Completion):
            second = self._reply(case, sampling, cold=True)
        return LargestPageReplies(page, self.expected(file, max_tokens), first, second)

    def saved(self, picture: Picture, logs: RunLogs) -> str:
        """Keeps a picture and its request as files; returns the command that sends it again."""
        from ..engines import pictures
        from ..engines.address import KEY_VARIABLE

        try:
            path = pictures.write(picture, logs.directory)
            request = path.with_suffix(".json")
            request.write_text(self._body(path), "utf-8")
        except (ConfigurationError, OSError) as error:
            return f"not possible, because the picture could not be kept: {error}"
        url = f"{self.client.endpoint.url}/v1/chat/completions"
        return (
            f'curl {shlex.quote(url)} -H "Authorization: Bearer ${KEY_VARIABLE}" '
            f"-H 'Content-Type: application/json' -d @{shlex.quote(str(request))}"
        )

    def _body(self, image: Path) -> str:
        """The body of the request with a file, as JSON."""
        from ..engines.messages import messages

        body = {
            "model": self.client.endpoint.served_name,
            "messages": messages(self.with_image(image)),
            "max_tokens": _ONE_TOKEN.max_tokens,
            "temperature": _ONE_TOKEN.temperature,
            "return_token_ids": True,
        }
        return json.dumps(body)

    def _page_tokens(self, width: int, height: int) -> int | None:
        """Length of the prompt with a blank page; None if the processor refuses the page."""
        from PIL import Image

        file = self.directory / "blank-page.png"
        Image.new("1", (width, height)).save(file, compress_level=1)
        return len(self.expected(file, 0).prompt) or None

    def _reply(
        self, case: Case, sampling: Sampling = _ONE_TOKEN, *, cold: bool = False
    ) -> Completion | Refusal:
        return reply_or_refusal(lambda: self.client.ask(case, sampling, cold=cold))


def longest_prompt(client: Client, model: ModelSpec) -> int | None:
    """The `max_model_len` that the server reports, else the declared one; None if unknown."""
    declared = model.serve.get("max_model_len")
    return client.max_model_len() or (declared if isinstance(declared, int) else None)


def largest_page(tokens_of: Callable[[int, int], int | None], longest: float) -> LargestPage:
    """The largest A4 page whose prompt is not too long.

    A processor with a limit of its own shrinks larger pages to it. Then the page has 200 dpi, or
    more if that adds tokens. No page has more than 600 dpi.

    Args:
        tokens_of: returns the prompt's length for a width and height in pixels; None if the
            processor refuses the page.
        longest: maximum tokens of a prompt; infinite if there is no such limit.
    """

    @functools.cache
    def tokens(height: int) -> float:
        known = tokens_of(_width(height), height)
        return math.inf if known is None else known

    def is_too_large(height: int) -> bool:
        return math.isinf(tokens(height)) or tokens(height) > longest

    if is_too_large(_TOP_HEIGHT):
        height = _first(is_too_large, 2, _TOP_HEIGHT) - 1
        is_refused = math.isinf(tokens(height + 1))
        length = f"the {longest:.0f} tokens that max_model_len leaves for a prompt"
        limit = "the processor, which refuses larger pages" if is_refused else length
    else:
        most = tokens(_TOP_HEIGHT)
        height = _first(lambda height: tokens(height) >= most, _USUAL_HEIGHT, _TOP_HEIGHT)
        is_shrunk = height < _TOP_HEIGHT - _ROUNDING
        resolution = "600 dpi, the most that the suite sends"
        limit = "the processor, which shrinks larger pages" if is_shrunk else resolution
    return LargestPage(_width(height), height, limit)


def _width(height: int) -> int:
    return max(round(height * _A4[0] / _A4[1]), 1)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first number from `low` on for which a condition holds, found by bisection.

    Args:
        holds: the condition; if it holds for a number, it holds for larger ones.
        low: the smallest candidate.
        high: a number for which the condition holds.
    """
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
