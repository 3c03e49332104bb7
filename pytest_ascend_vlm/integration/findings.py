"""Prints an error that stops several tests once: the first test shows it, the others refer to it.

A server that does not start stops every test of its class. Each of these tests is an error with a
row of its own. The full text is printed and stored with the first test only, with a count of the
others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

REPORTED_AT = "ascend_vlm_reported_at"
"""The attribute of a test's report that names the test which shows the same error in full."""

_STATUS = ("more", "E", "ERROR")


@dataclass(frozen=True)
class Location:
    """A test that ended with an error.

    Attributes:
        owner: the node id of the test class; the same error in two classes is shown twice.
        test: the node id of the test.
        criterion: the criterion with its case, as the report names it.
    """

    owner: str
    test: str
    criterion: str


class Findings:
    """The errors of a run, each with the first test that had it."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], Location] = {}

    def first(self, text: str, location: Location) -> Location:
        """Returns the first test that had an error: the given one, if the error is new.

        A first test that is run again stays the first.
        """
        return self._first.setdefault((location.owner, text), location)


FINDINGS = pytest.StashKey[Findings]()


def status(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """The terminal status of a test that refers to another test's error; None for other tests.

    Its letter is that of an error, but the list of errors at the end does not contain it.
    """
    return _STATUS if report.failed and hasattr(report, REPORTED_AT) else None


class Repeats:
    """Counts how many tests refer to each error; used in the process that prints."""

    def __init__(self) -> None:
        self._errors: dict[str, pytest.TestReport] = {}
        self._more: Counter[str] = Counter()

    def take(self, report: pytest.TestReport) -> None:
        """Counts the report of a test."""
        if not report.failed:
            return
        if first := getattr(report, REPORTED_AT, None):
            self._more[first] += 1
        else:
            self._errors[report.nodeid] = report

    def add_counts(self) -> None:
        """Appends to each error how many more tests it stopped; call before errors are printed."""
        for test, more in self._more.items():
            if test in self._errors:
                report, tests = self._errors[test], "tests" if more > 1 else "test"
                report.longrepr = f"{report.longrepr}\nand {more} more {tests} that it stopped"
