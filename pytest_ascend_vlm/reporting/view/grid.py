"""Speed of a model by image size and number of requests."""

from __future__ import annotations

from dataclasses import dataclass

from ..charts import grid_chart_names
from .missing import Commands, Missing, missing
from .rows import Rows, of, that_ran
from .speed import MeasuredVerdict, measured_verdict


@dataclass(frozen=True)
class Grid:
    """Speed by image size and number of requests at once.

    Attributes:
        verdicts: the criteria.
        charts: the heat map's quantity, "ttft" or "throughput" -> its file name.
    """

    verdicts: tuple[MeasuredVerdict, ...]
    charts: dict[str, str]


def grid(rows: Rows, run: Commands, *, charts: bool) -> Grid | Missing:
    """The grid of a model.

    Args:
        rows: the rows of the model.
        run: the commands of the model.
        charts: True if the view names the charts.
    """
    own = of(rows, "grid.")
    judged = that_ran(own)
    if not judged:
        return missing(own, run.run("grid"))
    return Grid(tuple(map(measured_verdict, judged)), grid_chart_names(judged) if charts else {})
