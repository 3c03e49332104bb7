"""Streams one long answer, and takes the times of its pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria.serving import is_in_time
from ..engines.vllm import metrics
from ..observation.streams import Stream
from ..processes.cpu_wait import cpu_wait_seconds
from ..spec.case import Case
from ..spec.thresholds import STREAM_ATTEMPTS, STREAM_TOKENS
from .request_timing import timing_of

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..observation.answers import Completion


def streams(client: Client, case: Case) -> tuple[Stream, ...]:
    """Streams an answer up to `STREAM_ATTEMPTS` times, until its pieces arrive in time.

    Raises:
        ServerError: the server refused a request, or a stream had no piece or no usage.
    """
    found: list[Stream] = []
    while len(found) < STREAM_ATTEMPTS and not (found and is_in_time(found[-1])):
        found.append(_stream(client, case))
    return tuple(found)


def _stream(client: Client, case: Case) -> Stream:
    def streamed() -> tuple[Completion, float]:
        """The answer, and the time that this client had no CPU meanwhile."""
        before = cpu_wait_seconds()
        answer = client.long_stream(case, STREAM_TOKENS)
        return answer, cpu_wait_seconds() - before

    one = client.long_stream(case, 1)
    (answer, starved), counted = metrics.measure(client.endpoint, streamed)
    timing = timing_of(answer)
    return Stream(
        answer.arrivals,
        timing.seconds,
        timing.output_tokens,
        one.seconds,
        counted.seconds.get("decode") if counted.requests == 1 else None,
        starved,
    )
