"""Conclusions from runs of the suite on faulty and on sound servers."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .fault import Fault, Kind
from .seen import Seen


class Conclusion(enum.Enum):
    """What became of a fault; the value is its text in tables."""

    CAUGHT = "caught"
    """Every criterion of `caught_by` is red."""
    PARTLY = "partly caught"
    """A criterion is red, but not every one of `caught_by`."""
    MISSED = "missed"
    NOT_PROVOKED = "missed: no request provoked it"
    NOT_ACTIVE = "ERROR: the fault was not active"
    NO_VERDICT = "ERROR: the model could not be judged"


DETECTED = frozenset({Conclusion.CAUGHT, Conclusion.PARTLY})
MISSED = frozenset({Conclusion.MISSED, Conclusion.NOT_PROVOKED})


@dataclass(frozen=True)
class Result:
    """The suite's judgement of one fault.

    Attributes:
        fault: the fault.
        model: the tiny checkpoint that had it.
        seen: what the suite showed.
        was_reached: True if the code with the fault ran.
        has_acted: True if it changed something while the suite ran.
    """

    fault: Fault
    model: str
    seen: Seen
    was_reached: bool = True
    has_acted: bool = True

    @property
    def conclusion(self) -> Conclusion:
        """What became of the fault."""
        if self.seen.problem:
            return Conclusion.NO_VERDICT
        if not self.was_reached:
            return Conclusion.NOT_ACTIVE
        if not self.still_green:
            return Conclusion.CAUGHT
        if self.seen.red:
            return Conclusion.PARTLY
        return Conclusion.MISSED if self.has_acted else Conclusion.NOT_PROVOKED

    @property
    def still_green(self) -> tuple[str, ...]:
        """The criteria of `caught_by` that are not red."""
        return tuple(name for name in self.fault.caught_by if name not in self.seen.red)

    def to_json(self) -> dict[str, Any]:
        """All that is known, for the last line of the benchmark."""
        return {
            "fault": self.fault.name,
            "kind": self.fault.kind.value,
            "place": self.fault.place.value,
            "model": self.model,
            "conclusion": self.conclusion.name.lower(),
            "still_green": list(self.still_green),
            "was_reached": self.was_reached,
            "has_acted": self.has_acted,
            **self.seen.to_json(),
        }


@dataclass(frozen=True)
class Control:
    """A run of the suite on a sound server.

    Attributes:
        model: the tiny checkpoint.
        mode: how it was served.
        seen: what the suite showed. All that is red is a false alarm.
    """

    model: str
    mode: str
    seen: Seen

    @property
    def is_clean(self) -> bool:
        """True if the model was judged and nothing was red."""
        return not self.seen.red and not self.seen.problem

    def to_json(self) -> dict[str, Any]:
        """All that is known, for the last line of the benchmark."""
        return {"model": self.model, "mode": self.mode, **self.seen.to_json()}


@dataclass(frozen=True)
class Rate:
    """How many faults of a kind were detected.

    Attributes:
        kind: the kind; None for all kinds together.
        judged: number of faults with a verdict.
        detected: number of those that turned any criterion red.
        as_named: number of those that turned every criterion of `caught_by` red.
    """

    kind: Kind | None
    judged: int
    detected: int
    as_named: int

    @property
    def share(self) -> float:
        """The rate of detection (0..1)."""
        return self.detected / self.judged


def rates(results: Sequence[Result]) -> list[Rate]:
    """The rates of all kinds with a judged fault, and of all of them together."""
    judged = [one for one in results if one.conclusion in DETECTED | MISSED]
    kinds = [kind for kind in Kind if any(one.fault.kind is kind for one in judged)]
    found = [_rate(kind, [one for one in judged if one.fault.kind is kind]) for kind in kinds]
    return [*found, _rate(None, judged)] if judged else []


def _rate(kind: Kind | None, judged: Sequence[Result]) -> Rate:
    detected = [one for one in judged if one.conclusion in DETECTED]
    as_named = [one for one in judged if one.conclusion is Conclusion.CAUGHT]
    return Rate(kind, len(judged), len(detected), len(as_named))


def diagnosed(results: Iterable[Result], first: int) -> int:
    """Number of faults whose part is among the first suspects."""
    return sum(one.fault.suspect in one.seen.suspects[:first] for one in results)


def holds(results: Iterable[Result], controls: Iterable[Control]) -> bool:
    """True if every fault was caught as named, and every control is clean."""
    caught = all(one.conclusion is Conclusion.CAUGHT for one in results)
    return caught and all(one.is_clean for one in controls)
