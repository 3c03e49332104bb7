"""Times of batches that an offline engine computed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """Requests that the engine got at once.

    Attributes:
        seconds: time until the last answer was complete.
        input_tokens: number of tokens of each prompt.
        output_tokens: number of tokens of each answer.
    """

    seconds: float
    input_tokens: tuple[int, ...]
    output_tokens: tuple[int, ...]


@dataclass(frozen=True)
class OfflineLoad:
    """The result of `vllm bench latency` or `vllm bench throughput`.

    Attributes:
        generator: the tool's name and version, "vllm bench latency 0.32.0".
        command: the command as a user types it.
        batches: the measured batches, at least one; `throughput` has one of all requests.
    """

    generator: str
    command: str
    batches: tuple[Batch, ...]

    @property
    def requests(self) -> int:
        """Number of measured requests."""
        return sum(len(batch.output_tokens) for batch in self.batches)
