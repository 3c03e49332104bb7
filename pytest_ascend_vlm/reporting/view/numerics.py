"""Logits and hidden states against the reference, and where the error is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..charts import error_chart_name
from ..labels import NUMBERS
from ..phrase import Phrase, Text
from ..sentences import sentence
from .answers import Comparisons, Parting, parting
from .missing import Commands, Missing, missing
from .rows import Json, Rows, evidence, first_evidence, number, of, with_verdict

FIGURES = (
    "max_abs_error",
    "mean_abs_error",
    "relative_error",
    "cosine_similarity",
    "R",
    "K",
    "positions",
    "images",
)
"""The figures of the numerical comparison, in the order of the field's documents."""

PARTS = ("image", "prompt", "answer")
"""The parts of a sequence."""


@dataclass(frozen=True)
class Column:
    """The numerical comparison of one engine's numbers with the reference's.

    Attributes:
        name: the engine and the kind of numbers.
        figures: figure -> value; None where it was not measured. See `FIGURES`.
        thresholds: figure -> threshold with its sense: ("at most", 1.0).
        passed: True if every threshold is kept; None if nothing was judged.
    """

    name: Phrase
    figures: dict[str, float | None]
    thresholds: dict[str, tuple[str, float]]
    passed: bool | None


@dataclass(frozen=True)
class Numerics:
    """The numerical comparison with the CPU reference in float32.

    Attributes:
        columns: served logits, served hidden states, Transformers' logits and hidden states on the
            device; those that were measured.
        chart: file name of the chart of the error along the sequence; empty if there is none.
    """

    columns: tuple[Column, ...]
    chart: str


@dataclass(frozen=True)
class PartError:
    """The error of the logits in one part of the sequences.

    Attributes:
        part: "image", "prompt" or "answer".
        positions: number of compared positions.
        share: share of this part in the squared error of all positions, 0..1.
        ratio: error divided by the reference's own bf16 error (R) in this part.
    """

    part: str
    positions: int
    share: float | None
    ratio: float | None


@dataclass(frozen=True)
class NearTie:
    """A request whose answer differs from the reference's.

    Attributes:
        case: the case's id.
        excused: True if rounding alone explains it.
        measured: log-probability by which the reference prefers its own token, nats.
        threshold: the preference up to which rounding alone explains it, nats.
        finding: the finding in one sentence.
        parting: the candidates of both sides; None if the report does not have them.
    """

    case: str
    excused: bool
    measured: float | None
    threshold: float | None
    finding: Text
    parting: Parting | None


@dataclass(frozen=True)
class AnswerError:
    """The deviation of the answers of one kind.

    Attributes:
        kind: "text" or "image".
        inexact: share of answers that differ from the reference's, 0..1.
        characters: mean share of characters that differ, 0..1.
        largest: largest share of characters that differ in one answer, 0..1.
    """

    kind: str
    inexact: float
    characters: float | None
    largest: float | None


@dataclass(frozen=True)
class ErrorAnalysis:
    """Where the error is; given on a pass as well.

    Attributes:
        parts: the error of the logits by part of the sequence; empty if it was not measured.
        whole: R over all positions.
        divergence: K, the Kullback-Leibler divergence divided by the reference's own.
        flips: number of positions at which the likeliest token differs.
        unexcused_flips: number of those that rounding does not explain.
        answers: the deviation of text and image answers.
        near_ties: the answers that differ from the reference's.
    """

    parts: tuple[PartError, ...]
    whole: float | None
    divergence: float | None
    flips: int | None
    unexcused_flips: int | None
    answers: tuple[AnswerError, ...]
    near_ties: tuple[NearTie, ...]


def numerics(rows: Rows, suite_class: str, run: Commands, *, charts: bool) -> Numerics | Missing:
    """The numerical comparison.

    Args:
        rows: the rows of the model.
        suite_class: its test class.
        run: the commands of the model.
        charts: True if the view names the charts.
    """
    own = of(rows, "numerics.logits", "numerics.hidden_states", "numerics.transformers")
    columns = tuple(found for name in NUMBERS if (found := _column(name, own)))
    if not columns:
        return missing(own, run.run("numerics"))
    charted = charts and any(
        evidence(row).get("per_position") for row in of(own, "numerics.logits")
    )
    return Numerics(columns, error_chart_name(suite_class) if charted else "")


def _column(name: str, rows: Rows) -> Column | None:
    """The column of "served logits", "transformers hidden_states", ...; None if not measured."""
    engine, _, numbers = name.partition(" ")
    criterion = f"numerics.{numbers}" if engine == "served" else "numerics.transformers"
    prefix = "" if engine == "served" else f"{numbers}-"
    own = [row for row in of(rows, criterion) if str(row["case"]).startswith(prefix)]
    told = first_evidence(own)
    if not told:
        return None
    judged = with_verdict(own)
    thresholds = {
        str(row["case"]).removeprefix(prefix): (str(row["sense"]), threshold)
        for row in judged
        if (threshold := number(row["threshold"])) is not None
    }
    return Column(
        NUMBERS[name],
        {figure: number(told.get(figure)) for figure in FIGURES},
        {_FIGURE_OF.get(case, case): value for case, value in thresholds.items()},
        all(row["status"] == "pass" for row in judged) if judged else None,
    )


_FIGURE_OF = {"error_ratio": "R", "kl_ratio": "K"}


def error_analysis(
    rows: Rows, answers: dict[str, Comparisons | Missing], run: Commands
) -> ErrorAnalysis | Missing:
    """Where the error is.

    Args:
        rows: the rows of the model.
        answers: "text" and "image" -> the comparison of the answers.
        run: the commands of the model.
    """
    of_logits = of(rows, "numerics.logits")
    told = first_evidence(of_logits)
    deviations = tuple(
        _deviation(kind, found) for kind, found in answers.items() if isinstance(found, Comparisons)
    )
    if not told and not deviations:
        return missing(of_logits, run.run("numerics"))
    ties = [row for row in with_verdict(of(rows, "baseline.divergence")) if _parted(row)]
    return ErrorAnalysis(
        _parts(told.get("per_position") or ()),
        number(told.get("R")),
        number(told.get("K")),
        told.get("flips"),
        told.get("unexcused_flips"),
        deviations,
        tuple(_near_tie(row) for row in ties),
    )


def _parts(series: Sequence[Json]) -> tuple[PartError, ...]:
    points = [
        (part, number(error), number(rounding))
        for case in series
        for part, error, rounding in zip(case["part"], case["error"], case["rounding"], strict=True)
    ]
    whole = _squares(error for _, error, _ in points)
    return tuple(
        _part(part, own, whole) for part in PARTS if (own := [p for p in points if p[0] == part])
    )


def _part(part: str, points: Sequence[Any], whole: float | None) -> PartError:
    errors, roundings = ([point[index] for point in points] for index in (1, 2))
    error = _squares(errors)
    share = error / whole if error is not None and whole else None
    return PartError(part, len(points), share, rounding_ratio(errors, roundings))


def rounding_ratio(
    errors: Iterable[float | None], roundings: Iterable[float | None]
) -> float | None:
    """R of some positions: their error in units of the reference's own bf16 rounding.

    Args:
        errors: the error of each position; None where it is not finite.
        roundings: the reference's own bf16 error at each position.

    Returns:
        None if a value is not finite, or the reference has no rounding there.
    """
    error, rounding = _squares(errors), _squares(roundings)
    return (error / rounding) ** 0.5 if error is not None and rounding else None


def _squares(values: Iterable[float | None]) -> float | None:
    """The sum of the squares; None if a value is not finite."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value**2
    return total


def _deviation(kind: str, found: Comparisons) -> AnswerError:
    mean, lowest = found.mean_similarity, found.lowest_similarity
    return AnswerError(
        kind,
        1 - found.exact / len(found.rows),
        None if mean is None else 1 - mean,
        None if lowest is None else 1 - lowest,
    )


def _parted(row: Json) -> bool:
    told = evidence(row)
    return bool(told.get("parting")) or row["status"] != "pass" or bool(number(row["measured"]))


def _near_tie(row: Json) -> NearTie:
    return NearTie(
        str(row["case"] or ""),
        row["status"] == "pass",
        number(row["measured"]),
        number(row["threshold"]),
        sentence(str(row.get("finding") or "")),
        parting(evidence(row).get("parting")),
    )
