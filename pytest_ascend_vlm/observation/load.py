"""How requests were answered in time, one by one and under load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timing:
    """How one streamed answer came.

    Attributes:
        case_id: the case that was asked.
        text: the answer.
        prompt_tokens: tokens of the prompt, images included; None where nobody counted them.
        output_tokens: tokens of the answer.
        ttft_seconds: from sending the request to the first token.
        seconds: from sending the request to the last token.
    """

    case_id: str
    text: str
    prompt_tokens: int | None
    output_tokens: int
    ttft_seconds: float
    seconds: float

    @property
    def tpot_seconds(self) -> float | None:
        """Mean time of each token after the first; None where there is none."""
        if self.output_tokens < 2:
            return None
        return (self.seconds - self.ttft_seconds) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Load:
    """What a load generator saw.

    Attributes:
        generator: its name and version, "vllm bench serve 0.32.0".
        concurrency: how many requests were on the way at a time, at most.
        duration_seconds: from the first request to the last token.
        timings: of the requests that were answered.
        errors: of those that were not, one text each.
        goodput: requests a second that met the declared service levels; None without any.
        server_seconds: what the server says that a mean request spent in "queue", "prefill" and
            "decode"; empty where it does not tell.
    """

    generator: str
    concurrency: int
    duration_seconds: float
    timings: tuple[Timing, ...]
    errors: tuple[str, ...] = ()
    goodput: float | None = None
    server_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def output_throughput(self) -> float:
        """Tokens of all answers a second."""
        return sum(timing.output_tokens for timing in self.timings) / self.duration_seconds

    @property
    def request_throughput(self) -> float:
        """Answers a second."""
        return len(self.timings) / self.duration_seconds
