"""A heat map of a table of numbers, as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..rounding import rounded

_CELL, _HEAD, _SIDE = (72, 34), 72, 110
# From little to much, told apart by colour-blind readers as well; the same as in report.html.
_COLOURS = ("#fde725", "#7ad151", "#22a884", "#2a788e", "#414487", "#440154")
_DARK_FROM = 3
# Width of a character of the title, at most on average.
_CHARACTER = 9


def heat_map(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]]) -> str:
    """An SVG with a coloured cell for each number, and the number in it.

    Args:
        title: the title.
        columns: the names of the columns.
        rows: name of a row -> its numbers, not negative, one a column or fewer.
    """
    width, height = _CELL
    most = max((value for values in rows.values() for value in values), default=0.0)
    parts = [_text(8, 32, title, "start"), *_names(columns)]
    for number, (name, values) in enumerate(rows.items()):
        top = _HEAD + number * height
        parts.append(_text(_SIDE - 8, top + 22, name, "end"))
        for place, value in enumerate(values):
            parts.extend(_cell(_SIDE + place * width, top, value, value / most if most else 0.0))
    wide = max(_SIDE + len(columns) * width, 8 + _CHARACTER * len(title)) + 8
    high = _HEAD + len(rows) * height + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" '
        'font-family="sans-serif" font-size="14">'
        f'<rect width="{wide}" height="{high}" fill="white"/>{"".join(parts)}</svg>'
    )


def _names(columns: Sequence[str]) -> list[str]:
    width, _ = _CELL
    return [
        _text(_SIDE + place * width + width // 2, _HEAD - 8, name, "middle")
        for place, name in enumerate(columns)
    ]


def _cell(left: int, top: int, value: float, share: float) -> tuple[str, str]:
    width, height = _CELL
    step = min(int(share * len(_COLOURS)), len(_COLOURS) - 1)
    colour = "white" if step >= _DARK_FROM else "black"
    return (
        f'<rect class="cell" x="{left}" y="{top}" width="{width}" height="{height}" '
        f'fill="{_COLOURS[step]}"/>',
        _text(left + width // 2, top + 22, rounded(value, 3), "middle", colour),
    )


def _text(left: int, top: int, text: str, anchor: str, colour: str = "black") -> str:
    return (
        f'<text x="{left}" y="{top}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )
