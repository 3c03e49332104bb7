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


@dataclass(frozen=True)
class Outcome:
    """How a test run inside a test ended.

    Attributes:
        result: pytest's own view of it.
        report: the content of report.json; empty where none was written.
        directory: where the report is.
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
        """All that was printed."""
        return self.result.stdout.str()

    def criteria(self, status: str) -> set[str]:
        """The criteria with at least one row of a status."""
        return {row["criterion"] for row in self.rows if row["status"] == status}

    def reasons(self, criterion: str) -> list[str]:
        """Why a criterion does not hold, one text per case."""
        red = [row for row in self.rows if row["status"] in {"fail", "error"}]
        return [row["reason"] for row in red if row["criterion"] == criterion]
