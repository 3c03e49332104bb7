"""Streams one long answer, and takes the times of its pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria.serving import is_in_time
from ..engines.vllm import metrics
from ..errors import ServerError
from ..observation.streams import Stream
from ..processes.cpu_wait import cpu_wait_seconds
from ..spec.case import Case
from ..spec.thresholds import STREAM_ATTEMPTS, STREAM_TOKENS

if TYPE_CHECKING:
    from ..engines.client import Client


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
    one = client.long_stream(case, 1)
    waited = cpu_wait_seconds()
    answer, counted = metrics.measure(
        client.endpoint, lambda: client.long_stream(case, STREAM_TOKENS)
    )
    if not answer.arrivals or answer.usage is None:
        raise ServerError(f"{case.id}: the stream contained no token, or no usage")
    return Stream(
        answer.arrivals,
        answer.seconds,
        answer.usage.completion_tokens,
        one.seconds,
        counted.seconds.get("decode") if counted.requests == 1 else None,
        cpu_wait_seconds() - waited,
    )
