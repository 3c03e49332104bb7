"""The times of a streamed answer and of its pieces."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stream:
    """The times of one streamed answer, in seconds.

    Attributes:
        arrivals: from sending the request to each piece.
        seconds: from sending the request to the end of the stream.
        tokens: number of tokens of the answer.
        one_token_seconds: from sending the same prompt to the end of an answer of one token.
        decode_seconds: from the first token to the last one, by the server's `/metrics`; None if
            the server does not report it for this request alone.
        starved_seconds: time that the client was ready to read, but had no CPU.
    """

    arrivals: tuple[float, ...]
    seconds: float
    tokens: int
    one_token_seconds: float
    decode_seconds: float | None = None
    starved_seconds: float = 0.0

    @property
    def made_seconds(self) -> float:
        """Time in which the answer was made after its first token.

        Without the server's own time, it begins when an answer of one token is complete, or with
        the first piece if that arrives earlier.
        """
        if self.decode_seconds is not None:
            return self.decode_seconds
        return self.seconds - min(self.one_token_seconds, *self.arrivals)

    @property
    def lateness(self) -> float:
        """Mean delay of a piece, as a share of `made_seconds`; NaN if that is not above 0.

        0 if the pieces arrive at equal intervals while the answer is made, 1/2 if all arrive at its
        end, 1/(2N) if they arrive in N equal parts.
        """
        if self.made_seconds <= 0:
            return float("nan")
        mean = sum(self.arrivals) / len(self.arrivals)
        return (mean - (self.seconds - self.made_seconds / 2)) / self.made_seconds
