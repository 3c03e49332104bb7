"""A report in the order in which a reader meets it; every renderer takes its content from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..criteria.groups import needs_server
from .charts import error_chart_name, performance_chart_names
from .rows import STATUSES, name_of
from .summary import group_of, worst_margin

NUMERICS_COLUMNS = (
    "served logits",
    "served hidden_states",
    "transformers logits",
    "transformers hidden_states",
)


_NUMERICS = {
    "numerics.logits": "served logits",
    "numerics.hidden_states": "served hidden_states",
}


_FIGURES = (
    "max_abs_error",
    "mean_abs_error",
    "relative_error",
    "cosine_similarity",
    "R",
    "K",
    "positions",
    "images",
)


_STATISTICS = ("value", "mean", "median", "p90", "p99", "peak")


@dataclass(frozen=True)
class View:
    """The contents of a document.

    Attributes:
        receipt: what was run where.
        models: one mapping per judged test class, see `_model_view`.
        not_judged: name of a model that is not applicable as a whole, and the reason.
    """

    receipt: Mapping[str, Any]
    models: list[dict[str, Any]]
    not_judged: list[tuple[str, str]]


def view(document: Mapping[str, Any], *, charts: bool = True) -> View:
    """The view of a report.

    Args:
        document: the content of report.json.
        charts: True if the view names the charts of the report.
    """
    judged, not_judged = _models(document)
    models = [_model_view(model, document["rows"]) for model in judged]
    for model in models if not charts else ():
        model["error_charts"] = []
        model["performance"] |= {"charts": {}} if model["performance"] else {}
    return View(document["receipt"], models, not_judged)


def _models(
    document: Mapping[str, Any],
) -> tuple[list[Mapping[str, Any]], list[tuple[str, str]]]:
    """The judged models by test class, and the names of the others with the reason.

    The others are those of which every row is not applicable. A model whose server never started
    has rows, but no server facts.
    """
    known = {(model["model"], model["suite_class"]): model for model in document["models"]}
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in document["rows"]:
        rows.setdefault((row["model"], row["suite_class"]), []).append(row)
    judged = [key for key, own in rows.items() if any(row["status"] != "na" for row in own)]
    return (
        [known.get(key, {"model": key[0], "suite_class": key[1]}) for key in judged],
        [
            (f"{key[0]} ({key[1]})", own[0]["reason"])
            for key, own in rows.items()
            if key not in judged
        ],
    )


def _model_view(model: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    key = (model["model"], model["suite_class"])
    own = [row for row in rows if (row["model"], row["suite_class"]) == key]
    ids = dict.fromkeys(row["criterion"] for row in own)
    criteria = [_criterion_view(name, [r for r in own if r["criterion"] == name]) for name in ids]
    classes = {row["suite_class"] for row in rows if row["model"] == model["model"]}
    return {
        "facts": model,
        "name": f"{key[0]} ({key[1]})" if len(classes) > 1 else key[0],
        "criteria": criteria,
        # Reference rows come from this CPU, wherever the model was served, so they do not count.
        "counts": _counts([r for r in own if needs_server(r["criterion"])] or own),
        "problems": _problems(own),
        "notes": [row for row in own if _is_noted(row)],
        "numerics": _numerics(own),
        "error_charts": _error_charts(own),
        "performance": _performance(own),
        "answers": [row for row in own if _is_answer(row)],
    }


def _is_noted(row: Mapping[str, Any]) -> bool:
    """True for a row that is an expected failure, was not judged, or recorded a doubtful golden."""
    doubtful = row["status"] == "recorded" and bool(row["reason"])
    return doubtful or row["status"] in {"xfail", "skip", "na"}


def _problems(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """The reason of each failure and error, with the number of other rows that it stopped."""
    bad = [row for row in rows if row["status"] in {"fail", "error"}]
    shown = {name_of(row["criterion"], row["case"]): row for row in bad if not row["told_at"]}
    more = Counter(row["told_at"] for row in bad if row["told_at"])
    # If the first test has no row (a user's plain test), the next row shows the error instead.
    for row in (row for row in bad if row["told_at"] and row["told_at"] not in shown):
        shown[row["told_at"]] = row
        more[row["told_at"]] -= 1
    return [(row["reason"], more[name]) for name, row in shown.items()]


def _criterion_view(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "id": name,
        "group": group_of(rows[0]),
        "counts": _counts(rows),
        "worst": worst_margin(rows),
    }


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Status -> number of rows; failures and errors come first."""
    found = Counter(row["status"] for row in rows)
    return {status: found[status] for status in STATUSES if status in found}


def _numerics(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """(figure, one value per column) for the numerics table; None if a value was not measured."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        column = _NUMERICS.get(row["criterion"], "")
        if row["criterion"] == "numerics.transformers":
            column = f"transformers {str(row['case']).partition('-')[0]}"
        if column and row.get("evidence"):
            found.setdefault(column, row["evidence"])
    if not found:
        return []
    columns = [found.get(column, {}) for column in NUMERICS_COLUMNS]
    return [(name, [column.get(name) for column in columns]) for name in _FIGURES]


def _error_charts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = [row for row in rows if "per_position" in (row.get("evidence") or {})]
    classes = [row["suite_class"] for row in shown if row["criterion"] == "numerics.logits"]
    return [error_chart_name(name) for name in dict.fromkeys(classes)]


def _performance(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The performance section of a test class; empty if nothing was measured."""
    of_speed = [row for row in rows if group_of(row) == "performance"]
    run = [row for row in of_speed if row["status"] not in {"skip", "na"}]
    if not run:
        return {}
    statistics, figures = _figures(run)
    return {
        "suite_class": run[0]["suite_class"],
        "rows": run,
        "statistics": statistics,
        "figures": figures,
        "charts": performance_chart_names(run),
    }


def _figures(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, list[str]]]:
    """The statistics that occur (the columns), and quantity -> one value per statistic."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        for figure in (row.get("evidence") or {}).get("figures", ()):
            quantity, _, statistic = figure["name"].rpartition(".")
            if statistic not in _STATISTICS:
                quantity, statistic = figure["name"], "value"
            value = _with_unit(figure["value"], figure["unit"])
            found.setdefault(quantity, {})[statistic] = value
    columns = [name for name in _STATISTICS if any(name in values for values in found.values())]
    return columns, {
        quantity: [values.get(name, "–") for name in columns] for quantity, values in found.items()
    }


def _with_unit(value: Any, unit: str) -> str:
    """A value with three significant digits and its unit; times below one second in ms."""
    if isinstance(value, str):  # NaN and infinity are strings in JSON
        return f"{value} {unit}"
    if unit == "s" and abs(value) < 1:
        value, unit = value * 1000, "ms"
    return f"{value:.3g} {unit}" if abs(value) < 100 else f"{value:.0f} {unit}"


def _is_answer(row: Mapping[str, Any]) -> bool:
    compared = row["criterion"] in {"baseline.text", "baseline.image"}
    return compared and "got" in (row.get("evidence") or {})
