"""From rows to `report.json`, and from that one truth to every rendering."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_atomically

__all__ = ["SCHEMA", "Report", "write"]

SCHEMA = 1


@dataclass
class Report:
    """What the tests reported so far.

    Attributes:
        rows: one per criterion and case, see `rows.Row`.
        models: model id -> facts of its server.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, properties: Iterable[tuple[str, Any]]) -> None:
        """Takes the rows and model facts out of a test's properties."""
        for name, value in properties:
            if name == "vlm_row":
                self.rows.append(value)
            elif name == "vlm_model":
                self.models.setdefault(value["model"], {}).update(value)

    def document(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The content of report.json."""
        models = list(self.models.values())
        return {
            "schema": SCHEMA,
            "receipt": {
                **receipt,
                "server_starts": sum(model.get("server_starts", 0) for model in models),
                "requests": sum(model.get("requests", 0) for model in models),
            },
            "models": models,
            "rows": self.rows,
        }


def write(report: Report, receipt: Mapping[str, Any], directory: Path) -> list[Path]:
    """Writes report.json and what is rendered from it; returns the paths."""
    from .markdown import LANGUAGES, render

    document = report.document(receipt)
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    files = {"report.json": text}
    files |= {f"adaptation.{language}.md": render(document, language) for language in LANGUAGES}
    for name, content in files.items():
        write_atomically(directory / name, content.encode("utf-8", "replace"))
    return [directory / name for name in files]
