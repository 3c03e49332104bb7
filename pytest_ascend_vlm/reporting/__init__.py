"""Builds `report.json` from rows, and renders all documents from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ..writing import write_atomically
from .diagnosis import diagnosis_json
from .directory import Written, as_bytes, write_report
from .origin import origin
from .reading import FILE_NAME, SCHEMA
from .rows import TAKEN_OVER, in_place
from .totals import totals

__all__ = [
    "SCHEMA",
    "Report",
    "Written",
    "rendered",
    "write_document",
    "write_files",
    "write_report",
]

RENDERERS = ("markdown", "chart_files", "html")
"""The modules that make files of a report: `files(document, languages)` gives name -> content."""


@dataclass
class Report:
    """The rows and server facts that the tests have reported so far.

    Attributes:
        models: (model id, test class) -> facts about its server.
    """

    models: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _keyed_rows: list[tuple[tuple[int, ...], dict[str, Any]]] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per criterion and case (see `rows.Row`), sorted by the tests' sort keys."""
        return [row for _, row in sorted(self._keyed_rows, key=lambda keyed: keyed[0])]

    def take(self, evidence: Iterable[tuple[str, Any]], sort_key: Sequence[int] = ()) -> None:
        """Adds the rows ("vlm_row") and the server facts ("vlm_model") of a test.

        Args:
            evidence: pairs of one of these names and a row or facts.
            sort_key: the key that the test's rows are sorted by.
        """
        for name, value in evidence:
            if name == "vlm_row":
                self._keyed_rows.append((tuple(sort_key), in_place(value, sort_key)))
            elif name == "vlm_model":
                key = (value["model"], value["suite_class"])
                known = self.models.setdefault(key, {"variants": {}})
                known["variants"].update(value.get("variants", {}))
                known.update({k: v for k, v in value.items() if k != "variants"})

    def add_to_models(self, facts: Mapping[str, Any]) -> None:
        """Adds the same facts to each model that was served."""
        for model in self.models.values():
            model.update(facts)

    def document(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The content of report.json."""
        rows = self.rows
        own = Counter(row["status"] for row in rows if TAKEN_OVER not in row)
        in_order = dict.fromkeys((row["model"], row["suite_class"]) for row in rows)
        keys = dict.fromkeys([*in_order, *self.models])
        models = [_with_named_cases(self.models[key], rows) for key in keys if key in self.models]
        return {
            "schema": SCHEMA,
            "receipt": {
                **receipt,
                "runs": [{**run, "statuses": dict(own)} for run in receipt.get("runs", ())],
                "origin": origin(receipt, rows),
                **totals(models),
            },
            "models": models,
            "diagnosis": diagnosis_json(rows),
            "rows": rows,
        }


def _with_named_cases(
    model: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The facts of a model, with those of its cases alone that its rows name."""
    named = {
        row["case"]
        for row in rows
        if (row["model"], row["suite_class"]) == (model["model"], model["suite_class"])
    }
    cases = {name: case for name, case in model.get("cases", {}).items() if name in named}
    return {**model, **({"cases": cases} if "cases" in model else {})}


def write_document(document: Mapping[str, Any], directory: Path) -> Written:
    """Writes report.json, then the documents and charts of it.

    The verdicts are on the disk before anything else is made of them.

    Raises:
        OSError: a file cannot be written.
    """
    return write_report(_files(document), directory)


def _files(document: Mapping[str, Any]) -> Iterator[tuple[str, str | bytes]]:
    from .language import LANGUAGES

    yield FILE_NAME, json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    yield from rendered(document, LANGUAGES).items()


def rendered(document: Mapping[str, Any], languages: Iterable[str]) -> dict[str, str | bytes]:
    """File name -> content of a report's documents, their charts and pictures."""
    found: dict[str, str | bytes] = {}
    for name in RENDERERS:
        found |= import_module(f".{name}", __name__).files(document, languages)
    return found


def write_files(files: Mapping[str, str | bytes], directory: Path) -> list[Path]:
    """Writes files, given as name -> content, to a directory; returns their paths.

    Raises:
        OSError: a file cannot be written.
    """
    for name, content in files.items():
        write_atomically(directory / name, as_bytes(content))
    return [directory / name for name in files]
