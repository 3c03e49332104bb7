"""The scores of public data sets."""

from __future__ import annotations

from dataclasses import dataclass

from ..phrase import Text
from ..sentences import sentence
from .missing import Commands, Missing, missing
from .rows import Json, Rows, evidence, first_line, number, of


@dataclass(frozen=True)
class Category:
    """The score in one category of a data set.

    Attributes:
        name: the category.
        samples: number of samples.
        score: the score, 0..1.
        reference: the reference's score on the same samples; None if it is unknown.
    """

    name: str
    samples: int
    score: float | None
    reference: float | None


@dataclass(frozen=True)
class Score:
    """The score of one data set.

    Attributes:
        name: the data set with its split, as the model file names it: "docvqa_val".
        benchmark: its name in the harness: "docvqa"; empty without a score.
        metric: the harness's metric.
        harness: the harness with its version.
        score: the score, 0..1; None if the run gave none (the reason is in `finding`).
        standard_error: standard error of the score, over the samples.
        samples: number of evaluated samples.
        total: number of samples of the data set.
        reference: the reference's score, 0..1.
        source: where the reference's score comes from.
        difference: score minus reference.
        difference_error: standard error of that difference.
        bounds: both ends of the difference's 95 % interval; None if only a published score is
            known.
        categories: the scores by category.
        finding: the finding in one sentence, or the reason why there is no score.
        status: the row's status.
    """

    name: str
    benchmark: str
    metric: str
    harness: str
    score: float | None
    standard_error: float | None
    samples: int | None
    total: int | None
    reference: float | None
    source: str
    difference: float | None
    difference_error: float | None
    bounds: tuple[float, float] | None
    categories: tuple[Category, ...]
    finding: Text
    status: str


def datasets(rows: Rows, run: Commands) -> tuple[Score, ...] | Missing:
    """The scores of all data sets."""
    own = of(rows, "dataset.")
    found = tuple(_score(row) for row in own if row["status"] not in {"na", "skip"})
    return found or missing(own, run.run("dataset"))


def _score(row: Json) -> Score:
    told = evidence(row)
    protocol, reference = told.get("protocol") or {}, told.get("reference") or {}
    bounds = told.get("bounds_95")
    return Score(
        row["criterion"].partition(".")[2],
        str(protocol.get("benchmark") or ""),
        str(protocol.get("metric") or ""),
        f"{protocol.get('harness', '')} {protocol.get('version', '')}".strip(),
        number(told.get("score")),
        number(told.get("score_standard_error")),
        told.get("samples"),
        told.get("total"),
        number(reference.get("score")),
        str(reference.get("source") or reference.get("engine") or ""),
        number(told.get("difference")),
        number(told.get("standard_error")),
        (float(bounds[0]), float(bounds[1])) if bounds else None,
        tuple(_category(name, of_one) for name, of_one in (told.get("categories") or {}).items()),
        sentence(first_line(row.get("finding") or row["reason"])),
        row["status"],
    )


def _category(name: str, told: Json) -> Category:
    return Category(
        name, int(told["samples"]), number(told["score"]), number(told.get("reference"))
    )
