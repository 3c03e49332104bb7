"""Rules of document.*: a page's text against its ground truth, compared with the golden's score.

Texts are compared after Unicode NFKC normalisation (full-width forms become ASCII), and each run of
white space becomes one space.
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
"""(truth, served text, golden text, tolerance) -> verdict."""

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*%?")
_MIN_LINE_SIMILARITY = 80.0  # percent


def normalise(text: str) -> str:
    """Applies NFKC, folds white space within lines and drops blank lines."""
    lines = (" ".join(line.split()) for line in unicodedata.normalize("NFKC", text).splitlines())
    return "\n".join(line for line in lines if line)


def character_error_rate(truth: str, read: str) -> float:
    """CER: the edit distance divided by the truth's length; 0 is exact, and it may exceed 1."""
    truth, read = normalise(truth), normalise(read)
    return float(Levenshtein.distance(truth, read)) / max(len(truth), 1)


def line_recall(truth: str, read: str) -> float:
    """The rate of the truth's lines that were read exactly."""
    expected = Counter(normalise(truth).split("\n"))
    return _recall(expected, Counter(normalise(read).split("\n")))


def number_recall(truth: str, read: str) -> float:
    """The rate of the truth's numbers that were read exactly; 1.0 if the truth has no number."""
    return _recall(Counter(numbers(truth)), Counter(numbers(read)))


def numbers(text: str) -> list[str]:
    """The numbers in a text, percent signs included, in order."""
    return _NUMBER.findall(normalise(text))


def order_rate(truth: str, read: str) -> float:
    """The rate of pairs of lines that were read in the right order.

    A line of the truth is found if a read line is at least 80 % similar. A pair with a line that
    was not found counts as wrong. A truth of one line gives 1.0 if the line was found.
    """
    expected, lines = normalise(truth).split("\n"), normalise(read).split("\n")
    indices = [_line_index(line, lines) for line in expected]
    pairs = list(combinations(indices, 2))
    if not pairs:
        return float(indices[0] is not None)
    ordered = sum(
        1 for one, other in pairs if one is not None and other is not None and one < other
    )
    return ordered / len(pairs)


def _line_index(line: str, lines: list[str]) -> int | None:
    match = process.extractOne(line, lines, scorer=fuzz.ratio, score_cutoff=_MIN_LINE_SIMILARITY)
    return None if match is None else int(match[2])


def _recall(expected: Counter[str], got: Counter[str]) -> float:
    total = expected.total()
    return (expected & got).total() / total if total else 1.0


def unread_reason(rule: Rule, truth: str, golden: str, tolerance: float) -> str | None:
    """Reason why a page cannot be judged by a rule and a golden, or None.

    There are two reasons. Either the golden does not read the page, or its score is so low that an
    empty answer would pass, at least with the tolerance after a near-tie.
    """
    error = character_error_rate(truth, golden)
    if not error <= READ_CER:
        return f"the reference does not read this page: its CER is {error:.3g}, above {READ_CER:g}"
    empty = rule(truth, "", golden, max(tolerance, TOLERANCE_AFTER_TIE))
    if empty.passed:
        return f"the reference's {empty.reason} gives no usable threshold: an empty answer passes"
    return None


def judge_characters(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """The CER is at most the golden's CER plus the tolerance."""
    golden_cer = character_error_rate(truth, golden)
    return at_most(
        character_error_rate(truth, read),
        golden_cer + tolerance,
        "CER",
        "character error rate against the ground truth",
        side_by_side(normalise(truth), normalise(read), "truth"),
        {"golden_cer": golden_cer, "truth": truth, "got": read},
    )


def judge_lines(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """The rate of exact lines is at least the golden's rate minus the tolerance."""
    missing = Counter(normalise(truth).split("\n")) - Counter(normalise(read).split("\n"))
    return _not_below(line_recall, (truth, read, golden), tolerance, "lines read exactly", missing)


def judge_numbers(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """The recall of numbers is at least the golden's recall minus the tolerance."""
    missing = Counter(numbers(truth)) - Counter(numbers(read))
    return _not_below(
        number_recall, (truth, read, golden), tolerance, "numbers read exactly", missing
    )


def judge_order(truth: str, read: str, golden: str, tolerance: float) -> Verdict:
    """The rate of line pairs in order is at least the golden's rate minus the tolerance."""
    return _not_below(
        order_rate, (truth, read, golden), tolerance, "pairs of lines in order", Counter()
    )


def _not_below(
    rate: Callable[[str, str], float],
    texts: tuple[str, str, str],
    tolerance: float,
    unit: str,
    missing: Counter[str],
) -> Verdict:
    truth, read, golden = texts
    details = tuple(f"not read: {text!r}" for text in list(missing)[:5])
    return at_least(
        rate(truth, read),
        rate(truth, golden) - tolerance,
        "rate",
        f"rate of {unit}",
        (*details, *side_by_side(normalise(truth), normalise(read), "truth")),
        {"golden_rate": rate(truth, golden), "missing": sorted(missing)},
    )
