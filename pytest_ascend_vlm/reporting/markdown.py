"""Renders the adaptation document, in the form usual for Ascend adaptations, from report.json.

All output of a model is escaped or put into a code block, because it may contain markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from .view import view

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
    return template.render(vars(view(document, charts=charts)))


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


def _threshold_text(row: Mapping[str, Any]) -> str:
    """The threshold of a row with its sense: "≥ 0.9"."""
    sign = {"at least": "≥ ", "at most": "≤ ", None: ""}[row["sense"]]
    return sign + _number(row["threshold"])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–"


def _mark(status: str) -> str:
    return _MARKS[status]
