"""Published figures beside the values that this run measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...criteria.criterion import WORKLOAD
from ...criteria.groups import OWN_GROUP
from ..labels import figure_name
from ..phrase import Text, listed, phrase
from ..quantity import interval, with_unit
from ..sentences import sentence
from ..summary import group_of
from .answers import cost
from .conditions import Setting, differences, own_conditions, stated_conditions
from .missing import Commands, missing
from .rows import Json, Rows, evidence, mean, number, of, with_verdict

_OF_THE_START = {"start", "weights_seconds", "weights_gib"}
_ERRORS = ("max_abs_error", "mean_abs_error", "relative_error", "cosine_similarity")


@dataclass(frozen=True)
class Quantity:
    """A measured value.

    Attributes:
        value: the value.
        unit: its unit; empty for a pure number.
        low: lower end of its 95 % interval; None if it has none, or the end is open.
        high: upper end.
    """

    value: float
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of a published document, beside the measured one.

    Attributes:
        name: the quantity.
        published: the published value.
        stated: the conditions that the document states.
        measured: the measured value, with its interval; None if it was not measured.
        conditions: the conditions of the measurement, or the reason why there is none.
        equal: True if the conditions are equal; None without a measured value.
        differences: how the conditions of the measured value differ.
    """

    name: Text
    published: str
    stated: Text | None
    measured: Text | None
    conditions: Text | None
    equal: bool | None
    differences: Text | None

    @property
    def cells(self) -> tuple[Text | None, ...]:
        """The cells of its row; None for an empty one."""
        if self.equal:
            equal: Text | None = phrase("yes")
        else:
            equal = self.differences and phrase("no: {differences}", differences=self.differences)
        return self.name, self.published, self.stated, self.measured, self.conditions, equal


@dataclass(frozen=True)
class Published:
    """The figures of a published document; they are shown, and never judged.

    Attributes:
        source: the document.
        figures: its figures.
        heads: the heads of the columns.
    """

    source: Text
    figures: tuple[PublishedFigure, ...]
    heads: tuple[Text, ...] = (
        phrase("figure"),
        phrase("published"),
        phrase("conditions of the published figure"),
        phrase("measured in this run"),
        phrase("conditions of the measurement"),
        phrase("conditions equal?"),
    )


def published(model: Json, rows: Rows, run: Commands, here: Setting) -> Published | None:
    """The published figures of a model; None if its file declares none.

    Args:
        model: the facts of the model.
        rows: its rows.
        run: its commands.
        here: where it was measured.
    """
    told = model.get("published") or {}
    if not told.get("figures"):
        return None
    measured = dict(quantities(model, rows))
    workloads = {one["name"]: one for one in model.get("workloads") or ()}
    conditions = {row["case"]: _conditions(row) for row in of(rows, WORKLOAD)}

    def beside(figure: Json) -> PublishedFigure:
        name, workload = _measured_name(figure), str(figure.get("workload") or "")
        found, load = measured.get(name), workloads.get(workload, {})
        extra = (sentence(str(figure["conditions"])),) if figure.get("conditions") else ()
        own = conditions.get(workload, {})
        differ = (*differences(told, figure, load, here, own), *extra) if found else ()
        return PublishedFigure(
            figure_name(name) if name else sentence(str(figure["name"])),
            f"{figure['value']} {figure['unit']}".strip(),
            listed(*stated_conditions(told, figure, load), *extra),
            _shown(found, here) if found else None,
            listed(*own_conditions(here, own)) if found else _absent(figure, name, rows, run),
            not differ if found else None,
            listed(*differ),
        )

    return Published(sentence(str(told["source"])), tuple(map(beside, told["figures"])))


def _shown(found: Quantity, here: Setting) -> Text:
    ends = interval(found.low, found.high, found.unit)
    value = " ".join(filter(None, (with_unit(found.value, found.unit), ends)))
    return value if here.is_npu else phrase("{value}, not on an NPU", value=value)


def _measured_name(figure: Json) -> str:
    """The report's name of a figure's measured number; empty if it has none."""
    if workload := figure.get("workload"):
        return f"workload.{workload}.{figure['statistic']}"
    return str(figure.get("metric") or "")


def _absent(figure: Json, name: str, rows: Rows, run: Commands) -> Text:
    """The reason why a figure has no measured neighbour."""
    if figure.get("unmeasured"):
        return sentence(str(figure["unmeasured"]))
    criterion, command = _criterion(name, run)
    own = [row for row in of(rows, criterion) if row["case"] == (figure.get("workload") or None)]
    untold = [str(text) for row in own if (text := evidence(row).get("untold"))]
    if untold:
        return sentence(untold[0])
    found = missing(own or of(rows, criterion), command)
    if found.stopped:
        return phrase("a failure or an error stopped {criterion}", criterion=criterion)
    if found.reasons:
        return found.reasons[0]
    if with_verdict(own):
        return phrase("the server did not state it")
    return phrase("not measured; run {command}", command=command)


def _criterion(name: str, run: Commands) -> tuple[str, str]:
    """The criterion that measures a number, and the command that runs it."""
    kind = name.partition(".")[0]
    if kind in _OF_THE_START:
        return "serving.ready", run.run()
    if kind == "dataset":
        return name, run.run("dataset")
    if kind in {"workload", "cpu"}:
        return (WORKLOAD if kind == "workload" else "performance.cpu_use"), run.run("performance")
    if kind == "tasks":
        return name.rpartition(".")[0], run.run()
    return f"numerics.{kind}", run.run()


def _conditions(row: Json) -> Json:
    """The conditions of a workload; empty for the rows of other criteria."""
    return (evidence(row).get("conditions") or {}) if row["criterion"] == WORKLOAD else {}


def quantities(model: Json, rows: Rows) -> Iterator[tuple[str, Quantity]]:
    """The measured quantities that a published figure can have beside it.

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
        if group_of(row) == OWN_GROUP:  # a user's own evidence may be anything
            continue
        told = evidence(row)
        for figure in told.get("figures") or ():
            if (value := number(figure["value"])) is not None:
                ends = number(figure.get("low")), number(figure.get("high"))
                yield figure["name"], Quantity(value, figure["unit"], *ends)
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
