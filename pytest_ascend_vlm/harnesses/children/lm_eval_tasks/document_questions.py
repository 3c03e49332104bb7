"""Scores answers about documents with ANLS, the metric of DocVQA and InfographicVQA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MIN_SIMILARITY = 0.5


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """ANLS: the similarity to the nearest accepted answer; 0 if it is below 0.5."""
    return {"anls": max(similarity(answer, results[0]) for answer in doc["answers"])}


def similarity(accepted: str, given: str) -> float:
    """1 - edit distance / length of the longer text, ignoring case and spacing."""
    from nltk.metrics.distance import edit_distance

    left, right = (" ".join(text.lower().split()) for text in (accepted, given))
    longest = max(len(left), len(right), 1)
    alike: float = 1 - edit_distance(left, right) / longest
    return alike if alike >= _MIN_SIMILARITY else 0.0
