"""Where the time of a request goes, by the server's own counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..phrase import Phrase, phrase
from .rows import number

_OF_SERVER: Mapping[str, Phrase] = {
    "server_queue": phrase("queue"),
    "server_prefill": phrase("vision tower and prefill"),
    "server_decode": phrase("decode"),
}
_OUTSIDE = phrase("outside the engine: image preprocessing, tokenizer, network")


@dataclass(frozen=True)
class Share:
    """A part of the time of a request.

    Attributes:
        phase: what is done in it.
        seconds: its mean time.
        share: the same, divided by the mean latency (0..1).
    """

    phase: Phrase
    seconds: float
    share: float


def time_shares(means: Mapping[str, float | str]) -> Sequence[Share]:
    """The parts of a request of one kind; empty if the server counts no phases.

    Args:
        means: "latency", "server_queue", "server_prefill" and "server_decode" -> mean seconds.
    """
    known = {name: number(means.get(name)) for name in ("latency", *_OF_SERVER)}
    latency = known.pop("latency")
    phases = {name: seconds for name, seconds in known.items() if seconds is not None}
    if not latency or len(phases) < len(_OF_SERVER):
        return ()
    # The client's clock and the server's may differ by a little.
    outside = max(latency - sum(phases.values()), 0.0)
    parts = [(_OUTSIDE, outside), *((_OF_SERVER[name], value) for name, value in phases.items())]
    return tuple(Share(name, seconds, seconds / latency) for name, seconds in parts)
