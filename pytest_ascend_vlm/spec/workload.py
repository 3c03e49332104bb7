"""A load that a document states: its requests, and how they are sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..errors import ConfigurationError
from .number import is_finite, is_whole

TOOLS = ("serve", "latency", "throughput")
"""The subcommands of `vllm bench` that a workload can name."""

SERVICE_LEVELS = ("ttft", "tpot", "e2el")
"""The times that a workload can have a service level for; `e2el` is that of the whole request."""

_NAME = re.compile(r"[\w/+-]+")
_GOODPUT = "{'ttft': 500, 'tpot': 50}"
_COUNTS = {
    "requests": 24,
    "input_tokens": 128,
    "image_tokens": 2560,
    "output_tokens": 128,
    "concurrency": 8,
}
"""Field -> an example of its whole number."""
_OPTIONAL = ("input_tokens", "image_tokens", "concurrency")


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
        tool: the subcommand of `vllm bench` that measures the load. "serve" sends the requests to
            the server. "latency" and "throughput" start an offline engine, which takes texts only:
            "latency" measures batches of `concurrency` requests, one after another, and
            "throughput" gives the engine all requests at once.

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
    tool: str = "serve"

    @property
    def is_offline(self) -> bool:
        """True if an offline engine gets the requests, and not the server."""
        return self.tool != "serve"

    @property
    def batch(self) -> int:
        """Number of requests that an offline engine gets at once."""
        return self.concurrency or self.requests

    @property
    def log_name(self) -> str:
        """The name of its files: "workload-128.128". A name has no dot, so no two share it."""
        return f"workload-{self.name.replace('/', '.')}"

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ConfigurationError(f"Workload({self.name!r}): {problem}")
        object.__setattr__(self, "goodput", MappingProxyType(dict(self.goodput)))

    def _problems(self) -> Iterable[str]:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            yield "a name has letters, digits, _, -, + and / only."
        # The form first: the rules after it compute with the numbers.
        yield from self._malformed()
        yield from self._offline_problems() if self.is_offline else self._served_problems()

    def _malformed(self) -> Iterable[str]:
        for name, example in _COUNTS.items():
            value = getattr(self, name)
            is_left_out = value is None and name in _OPTIONAL
            if not is_left_out and not (is_whole(value) and value >= 1):
                yield f"{name}={value!r} is no whole number above 0. Write {name}={example}."
        if self.request_rate is not None and not _is_positive(self.request_rate):
            yield (
                f"request_rate={self.request_rate!r} is no number of requests per second above 0. "
                "Write request_rate=2.5."
            )
        levels: object = self.goodput
        if not isinstance(levels, Mapping):
            yield f"goodput={levels!r}; write {_GOODPUT}, in ms."
            return
        for name, level in levels.items():
            if name not in SERVICE_LEVELS or not _is_positive(level):
                yield f"goodput={{{name!r}: {level!r}}}; write {_GOODPUT}, in ms."

    def _served_problems(self) -> Iterable[str]:
        if self.input_tokens is None and self.image_tokens is None:
            yield "declare input_tokens, image_tokens, or both."
        if self.concurrency is None and self.request_rate is None:
            yield "declare concurrency, request_rate, or both."

    def _offline_problems(self) -> Iterable[str]:
        if self.tool not in TOOLS:
            yield f"tool={self.tool!r} is none of {', '.join(TOOLS)}."
        if self.input_tokens is None or self.image_tokens or self.request_rate or self.goodput:
            yield (
                f"vllm bench {self.tool} gives texts to an offline engine: declare input_tokens, "
                "and no image_tokens, request_rate or goodput."
            )
        if self.tool == "throughput" and self.concurrency is not None:
            yield "vllm bench throughput gives the engine all requests at once: no concurrency."
        if self.tool == "latency" and (not self.concurrency or self.requests % self.concurrency):
            yield (
                "vllm bench latency measures batches of concurrency requests: declare concurrency, "
                "and a multiple of it as requests."
            )


def _is_positive(value: float) -> bool:
    return is_finite(value) and value > 0
