"""How a test run inside a test ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]
Serve = Callable[..., str]
Judged = Callable[..., "Outcome"]


def documents(directory: Path, language: str) -> list[str]:
    """The overview of a report in a language, then the document of each model."""
    paths = sorted(directory.glob(f"adaptation.*{language}.md"), key=lambda path: len(path.name))
    return [path.read_text("utf-8") for path in paths]


@dataclass(frozen=True)
class Outcome:
    """How a test run inside a test ended.

    Attributes:
        result: pytest's own result.
        report: the content of report.json; empty if none was written.
        directory: directory of the report.
    """

    result: pytest.RunResult
    report: Row
    directory: Path

    @property
    def rows(self) -> list[Row]:
        """The report's rows."""
        return list(self.report.get("rows", ()))

    @property
    def text(self) -> str:
        """The printed output."""
        return self.result.stdout.str()

    def criteria(self, status: str) -> set[str]:
        """The criteria with at least one row of a status."""
        return {row["criterion"] for row in self.rows if row["status"] == status}

    def criteria_of_nothing_else(self, status: str) -> set[str]:
        """The criteria whose rows all have a status."""
        return self.criteria(status) - {
            row["criterion"] for row in self.rows if row["status"] != status
        }

    def reasons(self, criterion: str) -> list[str]:
        """Reasons of a criterion's failures and errors, one text per case."""
        red = [row for row in self.rows if row["status"] in {"fail", "error"}]
        return [row["reason"] for row in red if row["criterion"] == criterion]
