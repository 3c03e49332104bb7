"""The charts as files; each says if its numbers are not an NPU's, because it may be shown alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .charts import charts
from .language import translator
from .origin import with_origin
from .view.environment import origin_of, warning

_FONT, _LINE, _MARGIN = 11, 16, 8
# A capital of a sans-serif font is that wide at most, in parts of the font's size.
_CHARACTER = 0.75


def files(
    document: Mapping[str, Any],
    languages: Iterable[str] = (),  # noqa: ARG001  (one picture serves all)
) -> dict[str, str]:
    """File name -> SVG of every chart that the report contains data for."""
    told = [*map(translator("en"), warning(origin_of(with_origin(document))))]
    return {name: _marked(svg, told) for name, svg in charts(document).items()}


def _marked(svg: str, told: Sequence[str]) -> str:
    """The chart below the lines, and at least as wide as they are."""
    if not told:
        return svg
    head, _, rest = svg.partition('viewBox="0 0 ')
    size, inner, rest = rest.partition('"')
    width, height = map(float, size.split())
    tag, closed, rest = rest.partition(">")
    drawing, end, after = rest.rpartition("</svg>")
    band = _LINE * len(told)
    width = max(width, 2 * _MARGIN + _CHARACTER * _FONT * max(map(len, told)))
    ground = f'<rect y="-{band}" width="100%" height="100%" fill="white"/>'
    lines = "".join(_line(_LINE * number - band, text) for number, text in enumerate(told, 1))
    box = f'viewBox="0 -{band} {width:g} {height + band:g}'
    return "".join((head, box, inner, tag, closed, ground, drawing, lines, end, after))


def _line(bottom: int, text: str) -> str:
    look = f'x="{_MARGIN}" y="{bottom - 4}" font-size="{_FONT}" fill="#b3141d"'
    return f"<text {look}>{escape(text)}</text>"
