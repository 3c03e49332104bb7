"""A section that has no evidence, and the command that gives it."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from ..phrase import Text
from ..sentences import sentence
from .rows import Json, Rows, first_line

_PLACE = "conformance"
_NEEDED = {"dataset": ("--vlm-datasets-root=DIR", "--vlm-harness-python=PYTHON")}
"""Marker -> the options that its criteria cannot run without; the reader has their values."""


@dataclass(frozen=True)
class Missing:
    """A section without evidence.

    Attributes:
        reasons: reasons of the report why its criteria were not judged, each once; empty if they
            were not run.
        stopped: True if an error or a failure stopped a criterion; the document's problems tell
            which.
        command: the command that measures it; empty if no command can (the model does not support
            it).
    """

    reasons: tuple[Text, ...] = ()
    stopped: bool = False
    command: str = ""


@dataclass(frozen=True)
class Commands:
    """The commands that repeat a run, or a part of it, for one test class.

    Attributes:
        selection: the words that select the tests of the class.
        options: the options that chose platform, checkpoint and serve arguments.
    """

    selection: tuple[str, ...]
    options: tuple[str, ...]

    def run(self, marker: str = "") -> str:
        """The command that runs the criteria of a marker and adds them to the report.

        Args:
            marker: the pytest marker; empty for the criteria that always run, which begin a report.
        """
        chosen = ["-m", marker] if marker else []
        words = ["pytest", *self.selection, *chosen, *_NEEDED.get(marker, ()), *self.options]
        added = ["--vlm-report-append"] if marker else []
        return shlex.join([*words, "--vlm-report=reports", *added])


def commands(receipt: Json, suite_class: str) -> Commands:
    """The commands of a test class on the platform and checkpoint of a run."""
    platform, checkpoint = str(receipt["platform"]), receipt.get("checkpoint")
    options = [] if platform in {"npu", "endpoint"} else [f"--vlm-platform={platform}"]
    options += ["--vlm-server-url=http://HOST:8000"] if platform == "endpoint" else []
    options += ["--vlm-checkpoint=tiny"] if checkpoint == "tiny" else []
    # Without them, another run is not merged with this one.
    for name, value in (receipt.get("serve_overrides") or {}).items():
        options += ["--vlm-serve", f"{name}={json.dumps(value)}"]
    # -k would also select a class whose name begins with this one.
    test = (receipt.get("tests") or {}).get(suite_class)
    return Commands((test,) if test else (_PLACE, "-k", suite_class), tuple(options))


def missing(rows: Rows, command: str) -> Missing:
    """The section of rows that have no verdict.

    Args:
        rows: the rows of its criteria.
        command: the command that runs them.
    """
    statuses = {row["status"] for row in rows}
    reasons = (first_line(row["reason"]) for row in rows if row["status"] in {"na", "skip"})
    return Missing(
        tuple(sentence(reason) for reason in dict.fromkeys(reasons) if reason),
        bool(statuses & {"fail", "error"}),
        "" if statuses == {"na"} else command,
    )
