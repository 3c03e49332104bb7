"""Comparison of texts: similarity, and a display of the first difference."""

from __future__ import annotations

import unicodedata

from ..control_characters import printable
from .divergence import first_difference

_CONTEXT = 32  # characters before and after the first difference


def similarity(expected: str, got: str) -> float:
    """Character similarity: 1 - edit distance / length of the longer text. 1.0 means equal."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(expected, got))


def word_overlap(expected: str, got: str) -> float:
    """Jaccard overlap of the two sets of words, or of characters in a text without spaces."""
    left, right = _words(expected), _words(got)
    return len(left & right) / len(left | right) if left | right else 1.0


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split() if " " in text.strip() else text.strip())


def side_by_side(expected: str, got: str, expected_name: str = "expected") -> tuple[str, ...]:
    """Lines that show both texts around their first difference, with a mark below it.

    Control characters are escaped, so that each text stays on one line.
    """
    index = first_difference(expected, got)
    if index is None:
        return (f"both: {printable(expected[: 2 * _CONTEXT])}",)
    start = max(0, index - _CONTEXT)
    before = printable(expected[start:index])
    lead = "…" if start else ""
    width = max(len(expected_name), len("got"))
    column = width + 2 + _columns(lead + before)
    return (
        f"{expected_name:>{width}}: {lead}{before}{_tail(expected, index)}",
        f"{'got':>{width}}: {lead}{before}{_tail(got, index)}",
        f"{' ' * column}^ first difference, at character {index + 1}",
    )


def _tail(text: str, index: int) -> str:
    rest = text[index : index + _CONTEXT]
    if not rest:
        return "⟨end⟩"
    return printable(rest) + ("…" if index + _CONTEXT < len(text) else "")


def _columns(text: str) -> int:
    """Width in terminal columns; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
