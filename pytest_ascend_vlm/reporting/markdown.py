"""Renders the adaptation document, in the form usual for Ascend adaptations, from report.json.

All output of a model is escaped or put into a code block, because it may contain markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from .view import Missing, ModelPage, View, view
from .view.numerics import FIGURES

LANGUAGES = ("zh", "en")
_MARKS = {
    "pass": "✅",
    "xfail": "⚠️",
    "na": "N/A",
    "skip": "⏭️",
    "fail": "❌",
    "error": "💥",
    "recorded": "📝",
}


def files(document: Mapping[str, Any], languages: Iterable[str]) -> dict[str, str]:
    """File name -> content of the documents in these languages."""
    return {f"adaptation.{language}.md": render(document, language) for language in languages}


def render(document: Mapping[str, Any], language: str, *, charts: bool = True) -> str:
    """The adaptation document of a report.

    Args:
        document: the content of report.json.
        language: one of `LANGUAGES`.
        charts: True if the document links its charts, which must be in the same directory.
    """
    import jinja2

    source = resources.files(__package__).joinpath(f"templates/adaptation.{language}.md.j2")
    environment = jinja2.Environment(  # noqa: S701  (Markdown: cells and code blocks are escaped here)
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "cell": cell,
        "block": code_block,
        "number": _number,
        "mark": _mark,
        "threshold": _threshold_text,
        "readable": _readable_name,
    }
    template = environment.from_string(source.read_text("utf-8"))
    return template.render(_context(document, view(document, charts=charts)))


def _context(document: Mapping[str, Any], shown: View) -> dict[str, Any]:
    """The names that the templates use."""
    facts = {(one["model"], one["suite_class"]): one for one in document["models"]}
    return {
        "receipt": document["receipt"],
        "not_judged": [(f"{x.model} ({x.suite_class})", x.reason) for x in shown.not_judged],
        "models": [
            _page_context(page, facts.get((page.model, page.suite_class), {}), document["rows"])
            for page in shown.models
        ],
    }


def _page_context(page: ModelPage, facts: Mapping[str, Any], rows: Any) -> dict[str, Any]:
    own = [r for r in rows if (r["model"], r["suite_class"]) == (page.model, page.suite_class)]
    of_numbers = () if isinstance(page.numerics, Missing) else page.numerics.columns
    charts = [] if isinstance(page.numerics, Missing) else [page.numerics.chart]
    return {
        "facts": {"model": page.model, **facts},
        "name": page.title,
        "criteria": page.criteria,
        "counts": page.counts,
        "problems": [(problem.reason, problem.more) for problem in page.problems],
        "notes": [r for r in own if r["status"] in {"xfail", "skip", "na"}]
        + [r for r in own if r["status"] == "recorded" and r["reason"]],
        "numerics": [
            (figure, [column.figures.get(figure) for column in of_numbers]) for figure in FIGURES
        ]
        if of_numbers
        else [],
        "error_charts": [chart for chart in charts if chart],
        "performance": {} if isinstance(page.speed, Missing) else _speed_context(page, own),
        "answers": [
            row
            for row in own
            if row["criterion"] in {"baseline.text", "baseline.image"}
            and "got" in (row.get("evidence") or {})
        ],
    }


def _speed_context(page: ModelPage, rows: Any) -> dict[str, Any]:
    assert not isinstance(page.speed, Missing)  # noqa: S101
    statistics = page.speed.statistics
    return {
        "suite_class": page.suite_class,
        "rows": [
            r
            for r in rows
            if r["criterion"].startswith("performance.") and r["status"] not in {"skip", "na"}
        ],
        "statistics": statistics,
        "figures": {
            figure.name: [
                _with_unit(figure.values[name], figure.unit) if name in figure.values else "–"
                for name in statistics
            ]
            for figure in page.speed.figures
        },
        "charts": page.speed.charts,
    }


def _with_unit(value: Any, unit: str) -> str:
    """A value with three significant digits and its unit; times below one second in ms."""
    if isinstance(value, str):  # NaN and infinity are strings in JSON
        return f"{value} {unit}"
    if unit == "s" and abs(value) < 1:
        value, unit = value * 1000, "ms"
    return f"{value:.3g} {unit}" if abs(value) < 100 else f"{value:.0f} {unit}"


def cell(value: Any) -> str:
    """A text as the content of a Markdown table cell or line, with its markup escaped."""
    flat = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(flat, quote=False))


def code_block(text: Any) -> str:
    """A text as a fenced code block; the fence is longer than any fence in the text."""
    content = str(text)
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content}\n{fence}"


def _readable_name(name: str, words: Mapping[str, str]) -> str:
    """A figure's name in a language: "load.c8.ttft" -> "load · concurrency 8 · TTFT"."""
    parts = (re.sub(r"^c(?=\d+$)", "concurrency ", part).split() for part in name.split("."))
    translated = (" ".join(words.get(word, word) for word in part) for part in parts)
    return " · ".join(translated).replace("_", " ")


def _threshold_text(row: Any) -> str:
    """The threshold of a row or a margin with its sense: "≥ 0.9"."""
    told = row if isinstance(row, Mapping) else vars(row)
    sign = {"at least": "≥ ", "at most": "≤ ", None: ""}[told["sense"]]
    return sign + _number(told["threshold"])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–"


def _mark(status: str) -> str:
    return _MARKS[status]
