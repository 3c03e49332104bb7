"""The charts as files; each says if its numbers are not an NPU's, because it may be shown alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from .charts import charts
from .language import translator
from .origin import origin
from .view.environment import origin_of, warning


def files(
    document: Mapping[str, Any],
    languages: Iterable[str] = (),  # noqa: ARG001  (one picture serves all)
) -> dict[str, str]:
    """File name -> SVG of every chart that the report contains data for."""
    receipt = document["receipt"]
    # The rows decide it, whatever the file says.
    found = origin_of({**receipt, "origin": origin(receipt, document["rows"])})
    told = " ".join(map(translator("en"), warning(found)))
    return {name: _marked(svg, told) for name, svg in charts(document).items()}


def _marked(svg: str, told: str) -> str:
    """The chart with a line in its upper right corner."""
    look = 'x="99%" y="11" text-anchor="end" font-size="11" fill="#b3141d"'
    before, end, after = svg.rpartition("</svg>")
    return f"{before}<text {look}>{escape(told)}</text>{end}{after}"
