"""Times of answers, one at a time and under load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Timed(Protocol):
    """Something that took a time."""

    @property
    def seconds(self) -> float:
        """The time."""
        ...


@dataclass(frozen=True)
class Timing:
    """The times of one streamed answer.

    Attributes:
        case_id: the case.
        text: the answer.
        prompt_tokens: number of tokens of the prompt, image tokens included; None if unknown.
        output_tokens: number of tokens of the answer.
        ttft_seconds: time from sending the request to the first token.
        seconds: time from sending the request to the last token.
        itl_seconds: ITL: the time between each two pieces of the stream; empty if not measured. A
            piece is one token, or more if the engine predicts tokens ahead.
    """

    case_id: str
    text: str
    prompt_tokens: int | None
    output_tokens: int
    ttft_seconds: float
    seconds: float
    itl_seconds: tuple[float, ...] = ()

    @property
    def tpot_seconds(self) -> float | None:
        """TPOT: the mean time of each token after the first; None for an answer of one token."""
        if self.output_tokens < 2:
            return None
        return (self.seconds - self.ttft_seconds) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Load:
    """The result of a load generator.

    Attributes:
        generator: the generator's name and version, "vllm bench serve 0.32.0".
        concurrency: maximum number of concurrent requests.
        duration_seconds: time from the first request to the last token.
        timings: the times of each answered request.
        errors: the error of each failed request.
        goodput: requests a second within the service levels; None if no levels were declared.
        server_seconds: "ttft", "latency", and the phases "queue", "prefill" and "decode" -> mean
            time of a request, as the server reports it; empty if it does not.
        server_requests: number of requests that these means are of. More than the answered ones
            if other clients use the server.
        wire_seconds: what the client's latency has beyond the server's, for an answer of one token
            to such a request; None if unknown.
    """

    generator: str
    concurrency: int
    duration_seconds: float
    timings: tuple[Timing, ...]
    errors: tuple[str, ...] = ()
    goodput: float | None = None
    server_seconds: Mapping[str, float] = field(default_factory=dict)
    server_requests: int = 0
    wire_seconds: float | None = None

    @property
    def output_throughput(self) -> float:
        """Output tokens a second, over all answers."""
        return sum(timing.output_tokens for timing in self.timings) / self.duration_seconds

    @property
    def request_throughput(self) -> float:
        """Answers a second."""
        return len(self.timings) / self.duration_seconds
