"""How well pages are read, and answers to questions about images."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...criteria.document import normalise, numbers
from ..labels import CATEGORIES, CONTENTS, named
from ..phrase import Text
from .answers import Cases, Cost, Question, cost, question
from .missing import Commands, Missing, missing
from .rows import Json, Rows, evidence, number, of, with_verdict

CATEGORIES_OF_THE_FIELD = (
    "tasks.scene_text",
    "tasks.document",
    "tasks.chart",
    "tasks.reasoning",
    "tasks.chinese",
)
"""The criteria of the five categories that the field's documents have."""


@dataclass(frozen=True)
class Page:
    """One page that was read.

    Attributes:
        question: the request, with the page's picture.
        truth: the text on the page.
        read: the text that the served model returned.
        character_errors: character error rate against the truth; 0 is exact.
        lines: rate of lines that were read exactly, 0..1.
        numbers: rate of numbers that were read exactly, 0..1.
        order: rate of pairs of lines in the right order, 0..1.
        reference_errors: character error rate of the reference's answer.
        missing: lines and numbers that were not read.
        difference: truth and read text, line by line: "-" only in the truth, "+" only in the read
            text, " " in both; empty if they are equal.
        cost: tokens and seconds of the answer.
        passed: True if all criteria of this page passed.
    """

    question: Question
    truth: str
    read: str
    character_errors: float | None
    lines: float | None
    numbers: float | None
    order: float | None
    reference_errors: float | None
    missing: tuple[str, ...]
    difference: tuple[tuple[str, str], ...]
    cost: Cost
    passed: bool


@dataclass(frozen=True)
class Content:
    """The pages with one kind of content.

    Attributes:
        name: the kind of content.
        pages: number of pages.
        characters: rate of characters read right over these pages: 1 - errors / characters.
        lines: rate of lines read exactly.
        numbers: rate of numbers read exactly; None if the pages have no number.
        reference_characters: rate of characters that the reference read right.
    """

    name: Text
    pages: int
    characters: float | None
    lines: float | None
    numbers: float | None
    reference_characters: float | None


@dataclass(frozen=True)
class Reading:
    """All pages that were read, and their sum.

    Attributes:
        pages: the pages.
        characters: rate of characters read right over all pages: 1 - errors / characters.
        lines: rate of lines read exactly, over all pages.
        numbers: rate of numbers read exactly, over all pages.
        order: mean rate of pairs of lines in the right order.
        reference_characters: rate of characters that the reference read right.
        contents: the same by kind of content, as the pages' cases name it.
    """

    pages: tuple[Page, ...]
    characters: float | None
    lines: float | None
    numbers: float | None
    order: float | None
    reference_characters: float | None
    contents: tuple[Content, ...]


@dataclass(frozen=True)
class Answered:
    """One question about an image, and its answer.

    Attributes:
        category: the category of the question.
        criterion: its criterion.
        question: the request.
        answer: the answer of the served model.
        accepted: the accepted answers.
        cost: tokens and seconds of the answer.
        status: the row's status.
    """

    category: Text
    criterion: str
    question: Question
    answer: str
    accepted: tuple[str, ...]
    cost: Cost
    status: str


@dataclass(frozen=True)
class Tasks:
    """The questions about images.

    Attributes:
        rows: those of the field's five categories, then the others.
        passed: number of rows that passed.
    """

    rows: tuple[Answered, ...]
    passed: int


def reading(rows: Rows, cases: Cases, run: Commands) -> Reading | Missing:
    """The pages that were read."""
    own = of(rows, "document.")
    by_case: dict[str, dict[str, Json]] = {}
    for row in with_verdict(own):
        by_case.setdefault(str(row["case"]), {})[row["criterion"]] = row
    pages = [_page(found, cases) for found in by_case.values() if _has_truth(found)]
    if not pages:
        return missing(own, run.run("accuracy"))
    return Reading(
        tuple(pages),
        _complement(_rate(pages, lambda page: page.character_errors, _characters)),
        _rate(pages, lambda page: page.lines, _lines),
        _rate(pages, lambda page: page.numbers, _numbers),
        _rate(pages, lambda page: page.order, lambda _: 1),
        _complement(_rate(pages, lambda page: page.reference_errors, _characters)),
        tuple(_contents(pages)),
    )


def _contents(pages: list[Page]) -> Iterator[Content]:
    """The rates by kind of content, in the order of the pages."""
    by_name: dict[str, list[Page]] = {}
    for page in pages:
        by_name.setdefault(re.sub(r"-\d+$", "", page.question.case), []).append(page)
    for name, of_kind in by_name.items():
        yield Content(
            named(CONTENTS, name),
            len(of_kind),
            _complement(_rate(of_kind, lambda page: page.character_errors, _characters)),
            _rate(of_kind, lambda page: page.lines, _lines),
            _rate(of_kind, lambda page: page.numbers, _numbers),
            _complement(_rate(of_kind, lambda page: page.reference_errors, _characters)),
        )


def _has_truth(found: dict[str, Json]) -> bool:
    return "truth" in evidence(found.get("document.characters", {}))


def _page(found: dict[str, Json], cases: Cases) -> Page:
    characters = found["document.characters"]
    told = evidence(characters)
    truth, read = str(told["truth"]), str(told["got"])
    unread = [evidence(found.get(name, {})).get("missing") or () for name in _RECALLS]
    rates = {name: number(row["measured"]) for name, row in found.items()}
    return Page(
        question(characters, cases),
        truth,
        read,
        number(characters["measured"]),
        rates.get("document.lines"),
        rates.get("document.numbers"),
        rates.get("document.order"),
        number(told.get("golden_cer")),
        tuple(dict.fromkeys(str(text) for texts in unread for text in texts)),
        difference(normalise(truth), normalise(read)),
        cost(characters),
        all(row["status"] == "pass" for row in found.values()),
    )


_RECALLS = ("document.lines", "document.numbers")


def difference(one: str, other: str) -> tuple[tuple[str, str], ...]:
    """Two texts line by line: (" ", "-" or "+", the line); empty if they are equal."""
    if one == other:
        return ()
    compared = difflib.ndiff(one.split("\n"), other.split("\n"))
    return tuple((line[0], line[2:]) for line in compared if line[0] != "?")


def _rate(
    pages: list[Page], value: Callable[[Page], float | None], weight: Callable[[str], int]
) -> float | None:
    """The mean of the pages' rates, weighted by the number of things that each page has."""
    known = [(rate, weight(page.truth)) for page in pages if (rate := value(page)) is not None]
    total = sum(count for _, count in known)
    return sum(rate * count for rate, count in known) / total if total else None


def _complement(rate: float | None) -> float | None:
    return None if rate is None else max(1 - rate, 0.0)


def _characters(truth: str) -> int:
    return len(normalise(truth))


def _lines(truth: str) -> int:
    return len(normalise(truth).split("\n"))


def _numbers(truth: str) -> int:
    return len(numbers(truth))


def tasks(rows: Rows, cases: Cases, run: Commands) -> Tasks | Missing:
    """The questions about images."""
    own = of(rows, "tasks.")
    judged = [row for row in with_verdict(own) if "got" in evidence(row)]
    of_field = [row for row in judged if row["criterion"] in CATEGORIES_OF_THE_FIELD]
    others = [row for row in judged if row["criterion"] not in CATEGORIES_OF_THE_FIELD]
    found = tuple(_answered(row, cases) for row in (*of_field, *others))
    if not found:
        return missing(of(rows, *CATEGORIES_OF_THE_FIELD), run.run("accuracy"))
    return Tasks(found, sum(row.status == "pass" for row in found))


def _answered(row: Json, cases: Cases) -> Answered:
    told = evidence(row)
    return Answered(
        named(CATEGORIES, row["criterion"]),
        row["criterion"],
        question(row, cases),
        str(told["got"]),
        tuple(str(text) for text in told.get("accepted") or ()),
        cost(row),
        row["status"],
    )
