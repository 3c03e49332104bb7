"""The diagnosis of each test class, in report.json and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..criteria.diagnosis import TITLES, Suspect, diagnose
from .rows import by_owner

Rows = Sequence[Mapping[str, Any]]


def diagnoses(rows: Rows) -> dict[tuple[str, str], tuple[Suspect, ...]]:
    """Model and test class -> the parts that its results point to; those without any left out."""
    found = {key: diagnose(own) for key, own in by_owner(rows).items()}
    return {key: suspects for key, suspects in found.items() if suspects}


def diagnosis_json(rows: Rows) -> list[dict[str, Any]]:
    """The diagnoses as an item of report.json."""
    return [
        {
            "model": model,
            "suite_class": suite_class,
            "suspects": [
                {"part": one.part.value, "because": one.because, "next": one.next_step}
                for one in suspects
            ],
        }
        for (model, suite_class), suspects in diagnoses(rows).items()
    ]


def diagnosis_lines(rows: Rows) -> list[str]:
    """The diagnoses as lines of the terminal: each suspect, its evidence, and the next step."""
    lines = []
    for (model, suite_class), suspects in diagnoses(rows).items():
        lines.append(f"what the results of {suite_class} ({model}) point to:")
        for number, one in enumerate(suspects, 1):
            lines += [f"  {number}. {TITLES[one.part]}", f"     next: {one.next_step}"]
        lines.append(f"  because {suspects[0].because}")
    return lines
