"""An error that stops many tests is one finding: the first has it in full, the others refer to it.

A server that does not start stops every test of its class. They stay errors, each with a row; what
is printed of it, and where it is stored, is one text and a count.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

TOLD_AT = "ascend_vlm_told_at"
"""The attribute of a test's report that names the test which has its error in full."""

_STATUS = ("more", "E", "ERROR")


@dataclass(frozen=True)
class Location:
    """A test that has an error.

    Attributes:
        owner: the test class's id; what stops two classes is two findings.
        test: the test's id.
        criterion: its criterion with the case, as the report has them.
    """

    owner: str
    test: str
    criterion: str


class Findings:
    """The errors of a run, and the test that had each of them first."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], Location] = {}

    def first(self, text: str, location: Location) -> Location:
        """The test that has an error in full; a test that is run again stays the first."""
        return self._first.setdefault((location.owner, text), location)


FINDINGS = pytest.StashKey[Findings]()


def in_one_line(text: str, first: Location) -> str:
    """An error, for the tests after the first."""
    headline = text.partition("\n")[0].rstrip(".")
    return f"{headline}; in full at {first.test}"


def status(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """How the terminal counts a test that refers to another one's error; None for any other.

    It is shown as an error while it runs, but is none of the errors that are printed at the end.
    """
    return _STATUS if report.failed and hasattr(report, TOLD_AT) else None


class Repeats:
    """In the process that prints: how many tests refer to each error."""

    def __init__(self) -> None:
        self._errors: dict[str, pytest.TestReport] = {}
        self._more: Counter[str] = Counter()

    def take(self, report: pytest.TestReport) -> None:
        """Takes the report of a test."""
        if not report.failed:
            return
        if told_at := getattr(report, TOLD_AT, None):
            self._more[told_at] += 1
        else:
            self._errors[report.nodeid] = report

    def count(self) -> None:
        """Adds to each error how many more tests it stopped, before the errors are printed."""
        for test, more in self._more.items():
            if test in self._errors:
                report, tests = self._errors[test], "tests" if more > 1 else "test"
                report.longrepr = f"{report.longrepr}\nand {more} more {tests} that it stopped"
