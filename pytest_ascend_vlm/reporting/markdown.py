"""The adaptation document, in the form the field hands in, printed from report.json.

Everything that a model said is shown in a code block or escaped: it is data, whatever it says.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from .summary import group_of, worst_margin

LANGUAGES = ("zh", "en")
_MARKS = {"pass": "✅", "xfail": "⚠️", "na": "N/A", "skip": "⏭️", "fail": "❌", "error": "💥"}


def render(document: Mapping[str, Any], language: str) -> str:
    """The adaptation document of a report.

    Args:
        document: the content of report.json.
        language: one of `LANGUAGES`.
    """
    import jinja2

    source = resources.files(__package__).joinpath(f"templates/adaptation.{language}.md.j2")
    environment = jinja2.Environment(  # noqa: S701  (Markdown: cells and code blocks are escaped here)
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"cell": cell, "block": code_block, "number": _number, "mark": _mark}
    template = environment.from_string(source.read_text("utf-8"))
    judged, not_judged = _models(document)
    return template.render(
        receipt=document["receipt"],
        models=[_model_view(model, document["rows"]) for model in judged],
        not_judged=not_judged,
    )


def cell(value: Any) -> str:
    """A text as the content of a Markdown table cell or line, without any markup of its own."""
    flat = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(flat, quote=False))


def code_block(text: Any) -> str:
    """A text as a fenced code block, with a fence longer than any in the text."""
    content = str(text)
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content}\n{fence}"


def _models(document: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The models of a report, and the names of those to which nothing applied.

    One that never got a server has rows only.
    """
    known = {model["model"]: model for model in document["models"]}
    statuses: dict[str, set[str]] = {}
    for row in document["rows"]:
        statuses.setdefault(row["model"], set()).add(row["status"])
    judged = [name for name, found in statuses.items() if found != {"na"}]
    return (
        [known.get(name, {"model": name}) for name in judged],
        [name for name in statuses if name not in judged],
    )


def _model_view(model: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["model"] == model["model"]]
    ids = dict.fromkeys(row["criterion"] for row in own)
    criteria = [_criterion_view(name, [r for r in own if r["criterion"] == name]) for name in ids]
    return {
        "facts": model,
        "criteria": criteria,
        "holds": all(row["status"] in {"pass", "xfail", "na"} for row in own),
        "problems": [row for row in own if row["status"] in {"fail", "error"}],
        "notes": [row for row in own if row["status"] in {"xfail", "skip", "na"}],
        "answers": [row for row in own if _is_answer(row)],
    }


def _criterion_view(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "id": name,
        "group": group_of(rows[0]),
        "counts": Counter(row["status"] for row in rows),
        "worst": worst_margin(rows),
    }


def _is_answer(row: Mapping[str, Any]) -> bool:
    compared = row["criterion"] in {"baseline.text", "baseline.image"}
    return compared and "got" in (row.get("evidence") or {})


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "–"


def _mark(status: str) -> str:
    return _MARKS[status]
