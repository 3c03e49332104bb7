"""The figures of the community's section that compares the device with the reference."""

from __future__ import annotations

from dataclasses import dataclass

from .missing import Commands, Missing, missing
from .rows import Json, Rows, first_evidence, number, of
from .speed import Speed


@dataclass(frozen=True)
class Figure:
    """A figure of the comparison.

    Attributes:
        name: its name in the community's documents: "max_abs_diff".
        value: the value; `Missing` if the report does not have it.
        unit: "" for a plain number, "%" for a share (0..1), "ms".
    """

    name: str
    value: float | Missing
    unit: str = ""


_OF_LOGITS = {
    "max_abs_diff": ("max_abs_error", ""),
    "mean_abs_diff": ("mean_abs_error", ""),
    "cosine_similarity": ("cosine_similarity", ""),
    "top1_match": ("top1_match", "%"),
    "top5_match": ("top5_match", "%"),
    "match_within_1_percent": ("within_1_percent", "%"),
    "match_within_1_percent (reference in bf16)": ("own_within_1_percent", "%"),
    "R": ("R", ""),
    "K": ("K", ""),
}
"""Name -> key of the evidence of numerics.logits, and unit."""


def agreement(rows: Rows, speed: Speed | Missing, run: Commands) -> tuple[Figure, ...]:
    """The figures of a model.

    Args:
        rows: the rows of the model.
        speed: its measured speed.
        run: the commands of the model.
    """
    of_logits = of(rows, "numerics.logits")
    told = first_evidence(of_logits)
    # A report of an older version lacks some figures; its passes are no reason to give none.
    absent = missing([] if told else of_logits, run.run("numerics"))
    told = {**told, "top1_match": _top1_match(told)}
    known = {name: (number(told.get(key)), unit) for name, (key, unit) in _OF_LOGITS.items()}
    logits = (
        Figure(name, absent if value is None else value, unit)
        for name, (value, unit) in known.items()
    )
    return (*logits, *_latencies(speed, run))


def _top1_match(told: Json) -> float | None:
    flips, positions = number(told.get("flips")), number(told.get("positions"))
    return None if flips is None or not positions else 1 - flips / positions


def _latencies(speed: Speed | Missing, run: Commands) -> tuple[Figure, ...]:
    runs = () if isinstance(speed, Missing) else speed.runs
    known = {one.kind: one.mean.seconds * 1000 for one in runs}
    absent = speed if isinstance(speed, Missing) else Missing(command=run.run("performance"))
    return tuple(
        Figure(f"latency_ms ({kind})", known.get(kind, absent), "ms") for kind in ("text", "image")
    )
