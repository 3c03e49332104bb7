"""What a server did with a bad request or a dead engine, and after it."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import Completion, Refusal
from .shutdown import ShutdownReport


@dataclass(frozen=True)
class Incident:
    """A bad request.

    Attributes:
        reply: the reply to it; None if its client left before the end.
        seconds: time to that reply.
        meanwhile: the reply to a text request that was sent while the bad one waited; None if no
            such request was sent.
        meanwhile_seconds: time to that reply.
    """

    reply: Completion | Refusal | None = None
    seconds: float = 0.0
    meanwhile: Completion | Refusal | None = None
    meanwhile_seconds: float = 0.0


@dataclass(frozen=True)
class Recovery:
    """A bad request, and the requests with an image before and after it.

    Attributes:
        incident: the bad request.
        before: the answer before it.
        again: the reply to the same image after it, which may come from the caches.
        cold: the reply to an image in no cache after it.
        held: the number of requests that the server computes or has waiting in the end, beyond
            those before; None if it does not count them, infinite if it no longer does.
    """

    incident: Incident
    before: Completion
    again: Completion | Refusal
    cold: Completion | Refusal
    held: float | None


@dataclass(frozen=True)
class Stall:
    """A server whose engine was stopped for a while, and then went on.

    Attributes:
        health: the last status of `/health` while the engine was stopped; None without a reply.
        seconds: how long the engine was stopped.
        before: the answer to an image before it.
        waited: the reply to the same image, sent while the engine was stopped.
    """

    health: int | None
    seconds: float
    before: Completion
    waited: Completion | Refusal


@dataclass(frozen=True)
class StreamEnd:
    """The end of a streamed answer.

    Attributes:
        error: the error; None if it ended as a whole answer does.
    """

    error: str | None


@dataclass(frozen=True)
class EngineLoss:
    """A server whose engine was killed.

    Attributes:
        stream: the end of the answer that the engine was computing; None if it is still open.
        health: the last status of `/health`; None without a reply.
        report: the end of the server; None if it did not end by itself.
    """

    stream: StreamEnd | None
    health: int | None
    report: ShutdownReport | None
