"""The characters in which two texts differ."""

from __future__ import annotations

EQUAL, ONLY_SERVED, ONLY_OTHER = "=", "+", "-"

Parts = tuple[tuple[str, str], ...]
"""Pieces of two texts in their order: in both, only in the served one, only in the other one."""


def difference(served: str, other: str) -> Parts:
    """The pieces of two texts, with the fewest edits: those that a character error rate counts.

    Equal texts have none.
    """
    from rapidfuzz.distance import Levenshtein

    if served == other:
        return ()
    found: list[tuple[str, str]] = []
    for edit in Levenshtein.opcodes(other, served):
        before = other[edit.src_start : edit.src_end]
        after = served[edit.dest_start : edit.dest_end]
        if edit.tag == "equal":
            found.append((EQUAL, after))
        else:
            found += [(ONLY_OTHER, before)] if before else []
            found += [(ONLY_SERVED, after)] if after else []
    return tuple(found)
