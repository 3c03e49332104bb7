"""From rows to `report.json`, and from that one truth to every rendering."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .origin import origin

__all__ = ["SCHEMA", "Report", "write"]

SCHEMA = 2


@dataclass
class Report:
    """What the tests reported so far.

    Attributes:
        rows: one per criterion and case, see `rows.Row`.
        models: (model id, test class) -> facts of its server.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    models: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def take(self, evidence: Iterable[tuple[str, Any]]) -> None:
        """Takes the rows ("vlm_row") and the facts of servers ("vlm_model") of a test."""
        for name, value in evidence:
            if name == "vlm_row":
                self.rows.append(value)
            elif name == "vlm_model":
                key = (value["model"], value["suite_class"])
                known = self.models.setdefault(key, {"variants": {}})
                known["variants"].update(value.get("variants", {}))
                known.update({k: v for k, v in value.items() if k != "variants"})

    def document(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """The content of report.json."""
        models = list(self.models.values())
        others = [facts for model in models for facts in model["variants"].values()]
        return {
            "schema": SCHEMA,
            "receipt": {
                **receipt,
                "origin": origin(receipt, self.rows),
                "server_starts": sum(model.get("server_starts", 0) for model in models)
                + len(others),
                "requests": sum(facts.get("requests", 0) for facts in [*models, *others]),
            },
            "models": models,
            "rows": self.rows,
        }


def write(report: Report, receipt: Mapping[str, Any], directory: Path) -> list[Path]:
    """Writes report.json and what is rendered from it; returns the paths."""
    from .charts import charts
    from .markdown import LANGUAGES, render

    document = report.document(receipt)
    text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    files = {"report.json": text}
    files |= {f"adaptation.{language}.md": render(document, language) for language in LANGUAGES}
    files |= charts(document)
    for name, content in files.items():
        write_atomically(directory / name, content.encode("utf-8", "replace"))
    return [directory / name for name in files]
