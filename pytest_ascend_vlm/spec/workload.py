"""A load that a document states: its requests, and how they are sent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..errors import ConfigurationError

SERVICE_LEVELS = ("ttft", "tpot", "e2el")
"""The times that a workload can have a service level for; `e2el` is that of the whole request."""

_NAME = re.compile(r"[\w/+-]+")


@dataclass(frozen=True)
class Workload:
    """A load under the conditions that a document states.

    Every answer has exactly `output_tokens` tokens, because its end is ignored. A workload with
    both `input_tokens` and `image_tokens` sends a text and a page in turns.

    Attributes:
        name: the name in reports and metrics, "128/128"; unique in a model file.
        requests: number of requests, without the warm-up.
        input_tokens: number of tokens of a text prompt, the chat template included. Its words are
            random. None for no text prompts.
        image_tokens: number of image tokens of a page, to 2 %; a tiny checkpoint may allow fewer.
            None for no pages.
        output_tokens: number of tokens of each answer. The default is that of `vllm bench serve`.
        concurrency: maximum number of requests at a time; None for any number.
        request_rate: mean number of requests per second, at random times; None sends the next
            request when an answer ends.
        goodput: "ttft", "tpot" or "e2el" -> service level in ms. Goodput counts the requests
            that meet each level. Empty for no goodput.

    Raises:
        ConfigurationError: a field is missing or has the wrong form.
    """

    name: str
    requests: int
    input_tokens: int | None = None
    image_tokens: int | None = None
    output_tokens: int = 128
    concurrency: int | None = None
    request_rate: float | None = None
    goodput: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "goodput", MappingProxyType(dict(self.goodput)))
        for problem in self._problems():
            raise ConfigurationError(f"Workload({self.name!r}): {problem}")

    def _problems(self) -> Iterable[str]:
        if not _NAME.fullmatch(self.name):
            yield "a name has letters, digits, _, -, + and / only."
        if self.input_tokens is None and self.image_tokens is None:
            yield "declare input_tokens, image_tokens, or both."
        if self.concurrency is None and self.request_rate is None:
            yield "declare concurrency, request_rate, or both."
        for name in ("requests", "input_tokens", "image_tokens", "output_tokens", "concurrency"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                yield f"{name}={value!r} is no whole number above 0."
        if self.request_rate is not None and not _is_positive(self.request_rate):
            yield f"request_rate={self.request_rate!r} is no number of requests per second."
        for name, level in self.goodput.items():
            if name not in SERVICE_LEVELS or not _is_positive(level):
                yield f"goodput={{{name!r}: {level!r}}}; write {{'ttft': 500, 'tpot': 50}}, in ms."


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0
