"""Scores answers about documents as DocVQA and InfographicVQA do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LEAST_SIMILARITY = 0.5


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """ANLS: the similarity to the nearest accepted answer, nothing below one half."""
    return {"anls": max(similarity(answer, results[0]) for answer in doc["answers"])}


def similarity(accepted: str, given: str) -> float:
    """One minus the edit distance in lengths of the longer text, case and spacing aside."""
    from nltk.metrics.distance import edit_distance

    left, right = (" ".join(text.lower().split()) for text in (accepted, given))
    longest = max(len(left), len(right), 1)
    alike: float = 1 - edit_distance(left, right) / longest
    return alike if alike >= _LEAST_SIMILARITY else 0.0
