"""How well a page was read: against its ground truth, and against what the golden reached.

Text is compared after Unicode NFKC normalisation (full-width forms become ASCII) with runs of white
space folded, so that only what was read counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import combinations

from rapidfuzz import fuzz, process
from rapidfuzz.distance import Levenshtein

from ..spec.thresholds import READ_CER, TOLERANCE_AFTER_TIE
from .text import side_by_side
from .verdict import Verdict, at_least, at_most

Rule = Callable[[str, str, str, float], Verdict]
"""truth, what was read, what the golden read, tolerance -> verdict."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*%?")
_SAME_LINE = 80.0


def normalise(text: str) -> str:
    """NFKC, white space folded within lines, blank lines dropped."""
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFKC", text).splitlines())
    return "\n".join(line for line in lines if line)


def character_error_rate(truth: str, read: str) -> float:
    """CER: edit distance over the length of the truth; 0 is exact, it may exceed 1."""
    truth, read = normalise(truth), normalise(read)
    return float(Levenshtein.distance(truth, read)) / max(len(truth), 1)


def line_recall(truth: str, read: str) -> float:
    """Rate of the truth's lines that were read exactly."""
    expected = Counter(normalise(truth).split("\n"))
    return _recall(expected, Counter(normalise(read).split("\n")))


def number_recall(truth: str, read: str) -> float:
    """Rate of the truth's numbers that were read exactly; 1.0 where it has none."""
    return _recall(Counter(numbers(truth)), Counter(numbers(read)))


def numbers(text: str) -> list[str]:
    """The numbers in a text, percent signs included, in order."""
    return _NUMBER.findall(normalise(text))


def order_rate(truth: str, read: str) -> float:
    """Rate of pairs of lines that were read in the right order.

    A line is found again where a read line is at least 80 % similar. A pair with a line that
    was not found counts as wrong; with fewer than two lines the rate is 1.0 if the line is there.
    """
    wanted, lines = normalise(truth).split("\n"), normalise(read).split("\n")
    places = [_place(line, lines) for line in wanted]
    pairs = list(combinations(places, 2))
    if not pairs:
        return float(places[0] is not None)
    ordered = sum(
        1 for one, other in pairs if one is not None and other is not None and one < other
    )
    return ordered / len(pairs)


def _place(line: str, lines: list[str]) -> int | None:
    found = process.extractOne(line, lines, scorer=fuzz.ratio, score_cutoff=_SAME_LINE)
    return None if found is None else int(found[2])


def _recall(expected: Counter[str], got: Counter[str]) -> float:
    total = expected.total()
    return (expected & got).total() / total if total else 1.0


def unread_reason(rule: Rule, truth: str, golden: str, tolerance: float) -> str | None:
    """Why a page cannot be judged by a rule and a golden, or None where it can.

    Either the golden is no reading of the page, or what it reached is so little that an empty
    answer would meet the bar, behind a near-tie at least.
    """
    error = character_error_rate(truth, golden)
    if not error <= READ_CER:
        return f"the reference does not read this page: its CER is {error:.3g}, above {READ_CER:g}"
    empty = rule(truth, "", golden, max(tolerance, TOLERANCE_AFTER_TIE))
    if empty.passed:
        return f"the reference sets no bar for the {empty.reason}: an empty answer would meet it"
    return None


def judge_characters(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """CER(served, truth) is at most CER(golden, truth) + tolerance."""
    limit = character_error_rate(truth, golden) + tolerance
    measured = character_error_rate(truth, read)
    return at_most(
        measured,
        limit,
        "CER",
        "character error rate against the ground truth",
        side_by_side(normalise(truth), normalise(read), "truth"),
        {"golden_cer": character_error_rate(truth, golden), "truth": truth, "got": read},
    )


def judge_lines(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """The rate of exact lines is at least the golden's - tolerance."""
    missing = Counter(normalise(truth).split("\n")) - Counter(normalise(read).split("\n"))
    return _not_below(line_recall, (truth, read, golden), tolerance, "lines read exactly", missing)


def judge_numbers(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """The recall of numbers is at least the golden's - tolerance."""
    missing = Counter(numbers(truth)) - Counter(numbers(read))
    return _not_below(
        number_recall, (truth, read, golden), tolerance, "numbers read exactly", missing
    )


def judge_order(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """The rate of line pairs in order is at least the golden's - tolerance."""
    return _not_below(
        order_rate, (truth, read, golden), tolerance, "pairs of lines in order", Counter()
    )


def _not_below(
    rate: Callable[[str, str], float],
    texts: tuple[str, str, str],
    tolerance: float,
    what: str,
    missing: Counter[str],
) -> Verdict:
    truth, read, golden = texts
    details = tuple(f"not read: {text!r}" for text in list(missing)[:5])
    return at_least(
        rate(truth, read),
        rate(truth, golden) - tolerance,
        "rate",
        f"rate of {what}",
        (*details, *side_by_side(normalise(truth), normalise(read), "truth")),
        {"golden_rate": rate(truth, golden), "missing": sorted(missing)},
    )
