"""The rule that times which a client measured agree with the server's own times.

A vLLM server counts the times of its requests (`/metrics`). TTFT and latency begin when its API
server has the request; the decode time is the engine's, from the first token to the last one. The
client's times differ by three things, and the rule allows for no more:

* the wire: sending the request, reading it, and returning the reply. It is what the client's
  latency of an answer of one token has beyond the server's latency for it. Requests that are sent
  at one time wait for each other there, so the wire counts once for each of them;
* a part of `SERVER_TIME_TOLERANCE`;
* for TTFT, the first tokens: a character may have up to four, and its piece arrives with the last.

A client without CPU, and a proxy that buffers, get all pieces of an answer at its end. Then TTFT is
too long and TPOT too short, and their latency is right.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from ..errors import PreconditionError
from ..observation.load import Load
from ..rounding import rounded
from ..spec.thresholds import SERVER_TIME_TOLERANCE

_MORE_TOKENS_OF_A_CHARACTER = 3


@dataclass(frozen=True)
class _Pair:
    """A mean time of the same requests by client and server, in seconds.

    Attributes:
        name: its name in messages.
        client: the client's time.
        server: the server's time.
        explained: the difference that the rule allows for.
    """

    name: str
    client: float
    server: float
    explained: float

    @property
    def agrees(self) -> bool:
        """True if the two times agree."""
        return abs(self.client - self.server) <= self.explained

    def __str__(self) -> str:
        return f"{self.name} {_ms(self.client)} (server: {_ms(self.server)})"


def compared(name: str, load: Load) -> str:
    """Compares the times of a load with the server's own times; returns what was compared.

    Args:
        name: the name of the measurement.
        load: the load; every request of it was answered.

    Raises:
        PreconditionError: they disagree, so the client's times are no figures of the server.
    """
    if reason := _not_comparable(load):
        return f"the times were not compared with the server's own: {reason}"
    pairs = _pairs(load)
    told = ", ".join(map(str, pairs))
    if wrong := [pair for pair in pairs if not pair.agrees]:
        explained = ", ".join(f"{pair.name} {_ms(pair.explained)}" for pair in wrong)
        raise PreconditionError(
            f"{name}: the times that the client measured are not those of the server's own "
            f"/metrics for the same {load.server_requests} requests: {told}. The wire and a "
            f"tolerance of {SERVER_TIME_TOLERANCE:.0%} explain a difference of {explained}. "
            "So the client's times are no figures of this server. Look for a client without CPU "
            "(other work on the host; on few cores, a server in another session: "
            "docs/performance.md), and for a proxy that buffers (serving.streaming judges that)."
        )
    return f"the server's own times agree: {told}"


def _not_comparable(load: Load) -> str:
    """The reason why the times cannot be compared, or an empty text."""
    if not {"ttft", "decode", "latency"} <= load.server_seconds.keys():
        return "its /metrics page does not have them"
    sent = len(load.timings)
    if load.server_requests != sent:
        return (
            f"it counted {load.server_requests} requests while {sent} were measured. Other clients "
            "use it, or its page is that of another server"
        )
    if load.wire_seconds is None:
        return "while the wire was measured, a request failed or other clients used the server"
    return ""


def _pairs(load: Load) -> tuple[_Pair, ...]:
    server = load.server_seconds
    ttft = statistics.fmean(timing.ttft_seconds for timing in load.timings)
    latency = statistics.fmean(timing.seconds for timing in load.timings)
    more_tokens = statistics.fmean(timing.output_tokens for timing in load.timings) - 1
    tpot = server["decode"] / more_tokens if more_tokens > 0 else 0.0
    wire = load.concurrency * (load.wire_seconds or 0.0)

    def explained(seconds: float) -> float:
        return wire + SERVER_TIME_TOLERANCE * seconds

    first = explained(server["ttft"]) + _MORE_TOKENS_OF_A_CHARACTER * tpot
    pairs = (
        _Pair("TTFT", ttft, server["ttft"], first),
        _Pair("latency", latency, server["latency"], explained(server["latency"])),
    )
    if more_tokens <= 0:
        return pairs
    further = explained(server["decode"]) / more_tokens
    return (*pairs, _Pair("TPOT", (latency - ttft) / more_tokens, tpot, further))


def _ms(seconds: float) -> str:
    return f"{rounded(1000 * seconds, 3)} ms"
