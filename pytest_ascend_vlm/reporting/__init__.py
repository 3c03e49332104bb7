"""Builds `report.json` from rows, and renders all documents from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from ..writing import write_atomically
from .origin import origin

__all__ = ["SCHEMA", "Report", "rendered", "write", "write_files"]

SCHEMA = 2

RENDERERS = ("markdown", "charts", "html")
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
                self._keyed_rows.append((tuple(sort_key), value))
            elif name == "vlm_model":
                key = (value["model"], value["suite_class"])
                known = self.models.setdefault(key, {"variants": {}})
                known["variants"].update(value.get("variants", {}))
                known.update({k: v for k, v in value.items() if k != "variants"})

    def document(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The content of report.json."""
        rows = self.rows
        in_order = dict.fromkeys((row["model"], row["suite_class"]) for row in rows)
        keys = dict.fromkeys([*in_order, *self.models])
        models = [self.models[key] for key in keys if key in self.models]
        others = [facts for model in models for facts in model["variants"].values()]
        return {
            "schema": SCHEMA,
            "receipt": {
                **receipt,
                "origin": origin(receipt, rows),
                "server_starts": sum(model.get("server_starts", 0) for model in models)
                + len(others),
                "requests": sum(facts.get("requests", 0) for facts in [*models, *others]),
            },
            "models": models,
            "rows": rows,
        }


def write(report: Report, receipt: Mapping[str, Any], directory: Path) -> list[Path]:
    """Writes report.json, the documents and the charts; returns their paths.

    Raises:
        OSError: a file cannot be written.
    """
    from .language import LANGUAGES

    document = report.document(receipt)
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    return write_files({"report.json": text, **rendered(document, LANGUAGES)}, directory)


def rendered(document: Mapping[str, Any], languages: Iterable[str]) -> dict[str, str]:
    """File name -> content of a report's documents and their charts."""
    found: dict[str, str] = {}
    for name in RENDERERS:
        found |= import_module(f".{name}", __name__).files(document, languages)
    return found


def write_files(files: Mapping[str, str], directory: Path) -> list[Path]:
    """Writes files, given as name -> content, to a directory; returns their paths.

    Raises:
        OSError: a file cannot be written.
    """
    for name, content in files.items():
        write_atomically(directory / name, content.encode("utf-8", "replace"))
    return [directory / name for name in files]
