"""Memory and answers of a server over many images."""

from __future__ import annotations

from dataclasses import dataclass

from ..charts import growth_chart_name
from .missing import Commands, Missing, missing
from .rows import Rows, of, that_ran
from .speed import MeasuredVerdict, measured_verdict


@dataclass(frozen=True)
class Growth:
    """What was seen of a server that answered many images.

    Attributes:
        verdicts: the criteria.
        chart: file name of the chart of memory; None if there is none.
    """

    verdicts: tuple[MeasuredVerdict, ...]
    chart: str | None


def growth(rows: Rows, run: Commands, *, charts: bool) -> Growth | Missing:
    """The growth of a model's server.

    Args:
        rows: the rows of the model.
        run: the commands of the model.
        charts: True if the view names the charts.
    """
    own = of(rows, "growth.")
    judged = that_ran(own)
    if not judged:
        return missing(own, run.run("soak"))
    chart = growth_chart_name(judged) if charts else None
    return Growth(tuple(map(measured_verdict, judged)), chart)
