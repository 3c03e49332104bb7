"""Published figures beside the values that this run measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..phrase import Text
from ..sentences import sentence
from .answers import cost
from .rows import Json, Rows, evidence, mean, number, of

_ERRORS = ("max_abs_error", "mean_abs_error", "relative_error", "cosine_similarity")


@dataclass(frozen=True)
class Quantity:
    """A measured value.

    Attributes:
        value: the value.
        unit: its unit; empty for a pure number.
    """

    value: float
    unit: str


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of a published document, beside the measured one.

    Attributes:
        name: the quantity, in the words of the document.
        value: the published value.
        unit: its unit.
        conditions: the conditions of the published measurement.
        metric: name of the measured quantity; empty if the model file names none.
        measured: the measured value; None if it was not measured.
    """

    name: Text
    value: float
    unit: str
    conditions: Text
    metric: str
    measured: Quantity | None


@dataclass(frozen=True)
class Published:
    """The figures of a published document; they are shown, and never judged.

    Attributes:
        source: the document.
        figures: its figures.
    """

    source: Text
    figures: tuple[PublishedFigure, ...]


def published(model: Json, rows: Rows) -> Published | None:
    """The published figures of a model; None if its file declares none."""
    told = model.get("published") or {}
    if not told.get("figures"):
        return None
    measured = dict(quantities(model, rows))
    return Published(
        sentence(str(told["source"])),
        tuple(
            PublishedFigure(
                sentence(str(figure["name"])),
                figure["value"],
                str(figure["unit"]),
                sentence(str(figure["conditions"])),
                str(figure.get("metric") or ""),
                measured.get(str(figure.get("metric") or "")),
            )
            for figure in told["figures"]
        ),
    )


def quantities(model: Json, rows: Rows) -> Iterator[tuple[str, Quantity]]:
    """The measured quantities that a published figure can name in `metric`.

    "start" (until the API answers); "weights_seconds" and "weights_gib", which vLLM states ("Model
    loading took ..."); a metric of performance; "logits.max_abs_error",
    "transformers.hidden_states.cosine_similarity"; "tasks.chart.seconds" (mean of its answers);
    "dataset.mmmu_val", in percent.
    """
    phases, memory = model.get("phases_seconds") or {}, model.get("memory") or {}
    # The suite also waits for a first image, which no published start contains.
    until_ready = [seconds for name, seconds in phases.items() if name != "first image"]
    if until_ready:
        yield "start", Quantity(float(sum(until_ready)), "s")
    for name, unit in (("weights_seconds", "s"), ("weights_gib", "GiB")):
        if (value := number(memory.get(name))) is not None:
            yield name, Quantity(value, unit)
    for row in rows:
        told = evidence(row)
        for figure in told.get("figures") or ():
            if (value := number(figure["value"])) is not None:
                yield figure["name"], Quantity(value, figure["unit"])
        if (score := number(told.get("score"))) is not None:
            yield row["criterion"], Quantity(100 * score, "%")
    yield from _errors(rows)
    yield from _seconds(rows)


def _errors(rows: Rows) -> Iterator[tuple[str, Quantity]]:
    for numbers in ("logits", "hidden_states"):
        for row in of(rows, f"numerics.{numbers}"):
            yield from _of_numbers(numbers, row)
        for row in of(rows, "numerics.transformers"):
            if str(row["case"]).startswith(f"{numbers}-"):
                yield from _of_numbers(f"transformers.{numbers}", row)


def _of_numbers(prefix: str, row: Json) -> Iterator[tuple[str, Quantity]]:
    for name in _ERRORS:
        value = number(evidence(row).get(name))
        if value is not None and name == "relative_error":
            yield f"{prefix}.{name}", Quantity(100 * value, "%")
        elif value is not None:
            yield f"{prefix}.{name}", Quantity(value, "")


def _seconds(rows: Rows) -> Iterator[tuple[str, Quantity]]:
    found: dict[str, list[float | None]] = {}
    for row in of(rows, "tasks."):
        found.setdefault(row["criterion"], []).append(cost(row).seconds)
    for criterion, values in found.items():
        if (seconds := mean(values)) is not None:
            yield f"{criterion}.seconds", Quantity(seconds, "s")
