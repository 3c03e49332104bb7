"""A section that has no evidence, and the command that gives it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .rows import Json, Rows

_PLACE = "conformance"


@dataclass(frozen=True)
class Missing:
    """A section without evidence.

    Attributes:
        reasons: reasons of the report why its criteria were not judged, each once; empty if they
            were not run.
        command: the command that measures it; empty if no command can (the model does not support
            it).
    """

    reasons: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Commands:
    """The commands that repeat a run, or a part of it, for one test class.

    Attributes:
        options: the options that chose platform and checkpoint.
        suite_class: the test class.
    """

    suite_class: str
    options: tuple[str, ...] = field(default=())

    def run(self, marker: str = "", *more: str) -> str:
        """The command that runs the criteria of a marker and adds them to a report.

        Args:
            marker: the pytest marker; empty for the criteria that always run.
            more: more arguments.
        """
        chosen = ["-m", marker] if marker else []
        words = ["pytest", _PLACE, "-k", self.suite_class, *chosen, *self.options, *more]
        return shlex.join([*words, "--vlm-report=reports"])


def commands(receipt: Json, suite_class: str) -> Commands:
    """The commands of a test class on the platform and checkpoint of a run."""
    platform, checkpoint = str(receipt["platform"]), receipt.get("checkpoint")
    options = [] if platform in {"npu", "endpoint"} else [f"--vlm-platform={platform}"]
    options += ["--vlm-server-url=http://HOST:8000"] if platform == "endpoint" else []
    options += ["--vlm-checkpoint=tiny"] if checkpoint == "tiny" else []
    return Commands(suite_class, tuple(options))


def missing(rows: Rows, command: str) -> Missing:
    """The section of rows that have no verdict.

    Args:
        rows: the rows of its criteria.
        command: the command that runs them.
    """
    reasons = _reasons(rows)
    unsupported = bool(rows) and all(row["status"] == "na" for row in rows)
    return Missing(reasons, "" if unsupported else command)


def _reasons(rows: Sequence[Any]) -> tuple[str, ...]:
    texts = (str(row["reason"]).partition("\n")[0] for row in rows if row["reason"])
    return tuple(dict.fromkeys(texts))
