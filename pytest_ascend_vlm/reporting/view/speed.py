"""Latency, throughput and CPU usage."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..charts import performance_chart_names
from ..labels import KINDS, figure_name
from ..phrase import Text
from ..sentences import sentence
from .conditions import load_conditions
from .missing import Commands, Missing, missing
from .rows import Json, Rows, evidence, first_line, mean, number, of, that_ran
from .time_shares import Share, time_shares

STATISTICS = ("value", "mean", "median", "p90", "p95", "p99", "peak")
"""The statistics of a figure, in the order of their columns."""


@dataclass(frozen=True)
class Figure:
    """A measured quantity.

    Attributes:
        name: its name in report.json without the statistic: "text.latency".
        label: its name for a reader.
        values: statistic -> value; only those that were measured.
        ends: statistic -> the ends of its 95 % interval; None for an open end. Only those that have
            an interval.
        unit: "s", "tok/s", "req/s", "%".
    """

    name: str
    label: Text
    values: Mapping[str, float | str]
    ends: Mapping[str, tuple[float | None, float | None]]
    unit: str


@dataclass(frozen=True)
class Request:
    """One request of a measurement; None where it cannot be told.

    Attributes:
        seconds: duration of the whole request.
        ttft: seconds until the first token: image encoding and prefill.
        decode: seconds from the first to the last token.
        output_tokens: tokens of the answer.
    """

    seconds: float
    ttft: float | None
    decode: float | None
    output_tokens: int | None

    @property
    def throughput(self) -> float | None:
        """Output tokens per second of the whole request."""
        return self.output_tokens / self.seconds if self.output_tokens and self.seconds else None

    @property
    def decode_throughput(self) -> float | None:
        """Output tokens per second after the first token."""
        later = (self.output_tokens or 0) - 1
        return later / self.decode if later > 0 and self.decode else None


@dataclass(frozen=True)
class Runs:
    """The requests of one kind, sent one at a time.

    Attributes:
        kind: "text" or "image".
        requests: the requests in their order.
        mean: the mean of each column.
    """

    kind: str
    requests: tuple[Request, ...]
    mean: Request
    mean_throughput: float | None
    mean_decode_throughput: float | None


@dataclass(frozen=True)
class WorkloadRuns:
    """A workload that was measured.

    Attributes:
        conditions: the conditions of the measurement.
        runs: its requests; `kind` is the workload's name.
        untold: the quantiles that so few requests cannot tell; empty if there is none.
    """

    conditions: tuple[Text, ...]
    runs: Runs
    untold: Text


@dataclass(frozen=True)
class MeasuredVerdict:
    """The verdict of one criterion that measures speed or memory.

    Attributes:
        criterion: its id.
        case: its case, or None.
        status: the row's status.
        measured: the measured value.
        threshold: the threshold.
        sense: "at least" or "at most"; None without a verdict.
        unit: the unit of both.
        finding: the finding, or the reason why there is no verdict.
    """

    criterion: str
    case: str | None
    status: str
    measured: float | None
    threshold: float | None
    sense: str | None
    unit: Text
    finding: Text


@dataclass(frozen=True)
class Speed:
    """What was measured of the speed.

    Attributes:
        verdicts: the criteria.
        statistics: the statistics that occur, as columns.
        figures: the measured quantities.
        runs: the single requests, for text and for images.
        shares: kind of these requests -> where their time goes; only where the server tells it.
        workloads: the workloads with their requests.
        charts: kind of chart -> file name.
        generators: the load generators with their versions.
    """

    verdicts: tuple[MeasuredVerdict, ...]
    statistics: tuple[str, ...]
    figures: tuple[Figure, ...]
    runs: tuple[Runs, ...]
    shares: Mapping[str, Sequence[Share]]
    workloads: tuple[WorkloadRuns, ...]
    charts: Mapping[str, str]
    generators: tuple[Text, ...]


def speed(rows: Rows, run: Commands, *, charts: bool) -> Speed | Missing:
    """The measured speed of a model.

    Args:
        rows: the rows of the model.
        run: the commands of the model.
        charts: True if the view names the charts.
    """
    own = of(rows, "performance.")
    measured = that_ran(own)
    if not measured:
        return missing(own, run.run("performance"))
    figures = _figures(measured)
    occurring = {statistic for figure in figures for statistic in figure.values}
    return Speed(
        tuple(measured_verdict(row) for row in measured),
        tuple(name for name in STATISTICS if name in occurring),
        figures,
        tuple(_runs(row) for row in of(measured, "performance.single_stream") if _is_timed(row)),
        _shares(figures),
        tuple(_workload(row) for row in of(measured, "performance.workload") if _has_latency(row)),
        performance_chart_names(measured) if charts else {},
        tuple(map(sentence, dict.fromkeys(filter(None, map(_generator, measured))))),
    )


def _generator(row: Json) -> str:
    return str(evidence(row).get("generator") or "")


def measured_verdict(row: Json) -> MeasuredVerdict:
    """The verdict of a row."""
    return MeasuredVerdict(
        row["criterion"],
        row["case"],
        row["status"],
        number(row["measured"]),
        number(row["threshold"]),
        row["sense"],
        sentence(str(row["unit"] or "")),
        sentence(first_line(row.get("finding") or row["reason"])),
    )


def _figures(rows: Rows) -> tuple[Figure, ...]:
    found: dict[str, dict[str, Any]] = {}
    ends: dict[str, dict[str, tuple[float | None, float | None]]] = {}
    units: dict[str, str] = {}
    for row in rows:
        for figure in evidence(row).get("figures", ()):
            name, _, statistic = figure["name"].rpartition(".")
            if statistic not in STATISTICS:
                name, statistic = figure["name"], "value"
            found.setdefault(name, {})[statistic] = figure["value"]
            interval = number(figure.get("low")), number(figure.get("high"))
            if interval != (None, None):
                ends.setdefault(name, {})[statistic] = interval
            units[name] = figure["unit"]
    return tuple(
        Figure(name, figure_name(name), values, ends.get(name, {}), units[name])
        for name, values in found.items()
    )


def _shares(figures: Sequence[Figure]) -> dict[str, Sequence[Share]]:
    means = {figure.name: figure.values.get("mean", "") for figure in figures}
    of_kind = {
        kind: {name.removeprefix(f"{kind}."): value for name, value in means.items()}
        for kind in KINDS
    }
    return {kind: shares for kind, values in of_kind.items() if (shares := time_shares(values))}


def _is_timed(row: Json) -> bool:
    return row["case"] in KINDS and _has_latency(row)


def _has_latency(row: Json) -> bool:
    return bool(_series(row).get("latency"))


def _workload(row: Json) -> WorkloadRuns:
    told = evidence(row)
    return WorkloadRuns(
        load_conditions(told.get("conditions") or {}),
        _runs(row),
        sentence(str(told.get("untold") or "")),
    )


def _series(row: Json) -> dict[str, list[float | None]]:
    told = evidence(row).get("series") or ()
    return {one["name"]: [number(value) for value in one["values"]] for one in told}


def _runs(row: Json) -> Runs:
    series = _series(row)
    latency, ttft = series.get("latency", []), series.get("ttft", [])
    counts = [number(one) for one in evidence(row).get("output_tokens") or ()]
    requests = tuple(
        Request(
            seconds,
            first,
            None if first is None else seconds - first,
            None if count is None else int(count),
        )
        for seconds, first, count in itertools.zip_longest(latency, ttft, counts)
        if seconds is not None
    )
    tokens = mean(request.output_tokens for request in requests)
    return Runs(
        str(row["case"]),
        requests,
        Request(
            mean(request.seconds for request in requests) or 0.0,
            mean(request.ttft for request in requests),
            mean(request.decode for request in requests),
            None if tokens is None else round(tokens),
        ),
        mean(request.throughput for request in requests),
        mean(request.decode_throughput for request in requests),
    )
