"""What a server tells about the way it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Told:
    """One fact about the way a server serves.

    Attributes:
        value: the fact, "FULL_DECODE_ONLY" for example.
        source: the words of the log, or the counter, that tell it.
    """

    value: str
    source: str

    def __str__(self) -> str:
        return f"{self.value} ({self.source})"


@dataclass(frozen=True)
class ServingMode:
    """The facts that a server tells about the way it serves.

    Attributes:
        engine: the engine and its release, "vLLM 0.18.0".
        facts: name of a fact -> the fact. A fact that the engine does not tell has no entry.
    """

    engine: str = "this engine"
    facts: Mapping[str, Told] = field(default_factory=dict)
