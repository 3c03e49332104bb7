"""Does the same model, served another way, behave the same?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..observation.answers import Completion, Reference
from ..spec.thresholds import Thresholds
from . import numerics
from .comparison import tie_margin
from .divergence import Divergence, first_difference, token_at
from .error_statistics import ErrorStatistics
from .text import side_by_side, similarity
from .verdict import Verdict, at_least

_UNKNOWN_TIE = 0.0


def judge_answers(
    expected: Mapping[str, Completion],
    got: Mapping[str, Completion],
    references: Mapping[str, Reference],
) -> Verdict:
    """The rate of answers that are equal, or part only where the first one was near a tie.

    Args:
        expected: the answers of the model as it is served, by case id.
        got: those of the other way, of the same cases.
        references: what tells how large rounding is, of the same cases.
    """
    parted = {
        case_id: divergence
        for case_id, answer in expected.items()
        if (divergence := _divergence(answer, got[case_id], references[case_id])) is not None
    }
    beyond = [case_id for case_id, divergence in parted.items() if not divergence.is_near_tie]
    details: tuple[str, ...] = ()
    for case_id in beyond[:1]:
        first = parted[case_id]
        details = (
            f"{case_id}: they part at token {first.position + 1}, which was preferred by "
            f"{first.preference:.3g} nats; rounding explains up to {first.tie:.3g}",
            *side_by_side(expected[case_id].text, got[case_id].text, "as served"),
        )
    equal, near = len(expected) - len(parted), len(parted) - len(beyond)
    rate = 1 - len(beyond) / len(expected)
    reason = f"{equal} of {len(expected)} answers are equal, {near} part at near-ties"
    evidence = {"parted": {case_id: one.position for case_id, one in parted.items()}}
    return at_least(rate, 1.0, "rate", reason, details, evidence)


def judge_similarity(
    expected: Mapping[str, Completion], got: Mapping[str, Completion], least: float
) -> Verdict:
    """The mean character similarity of the answers, where weights were rounded on purpose."""
    alike = {case_id: similarity(a.text, got[case_id].text) for case_id, a in expected.items()}
    worst = min(alike, key=lambda case_id: alike[case_id])
    details = (f"least alike: {worst}", *side_by_side(expected[worst].text, got[worst].text))
    mean = sum(alike.values()) / len(alike)
    equal = sum(1 for value in alike.values() if value == 1.0)
    reason = f"mean character similarity; {equal} of {len(alike)} answers are equal"
    evidence = {"similarity": {case_id: round(value, 4) for case_id, value in alike.items()}}
    return at_least(mean, least, "similarity", reason, details, evidence)


def error_ratio(measures: ErrorStatistics, bars: Thresholds, *, is_lossy: bool) -> Verdict:
    """R of the other way's logits; shown only, where it rounds on purpose."""
    verdict = numerics.judge_error_ratio(measures, numerics.NumericsThresholds.of_logits(bars))
    if not is_lossy:
        return verdict
    shown_only = float("inf")
    passed = verdict.measured <= shown_only  # NaN is not
    return dataclasses.replace(verdict, passed=passed, threshold=shown_only)


def _divergence(expected: Completion, got: Completion, reference: Reference) -> Divergence | None:
    if got.token_ids == expected.token_ids:
        return None
    ours, theirs = expected.token_ids or (), got.token_ids or ()
    position = first_difference(ours, theirs)
    if position is None:
        position = len(ours)  # one side reports no tokens
    return Divergence(
        position,
        token_at(ours, position),
        token_at(theirs, position),
        _preference(expected, theirs, position),
        _tie(reference, position),
    )


def _preference(expected: Completion, theirs: tuple[int, ...], position: int) -> float:
    if expected.top is None or position >= len(expected.top) or position >= len(theirs):
        return float("inf")
    listed = expected.top.at(position)
    other = listed.get(theirs[position])
    return float("inf") if other is None else max(listed.values()) - other


def _tie(reference: Reference, position: int) -> float:
    """Twice what one rounded side can turn: here both sides are."""
    numerics = reference.numerics
    if numerics is None:
        return _UNKNOWN_TIE
    known = min(position, len(numerics.token_ids))
    return 2 * tie_margin(numerics.peak_logit(known), numerics.logit_rmse)
