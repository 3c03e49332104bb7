"""Rules of equivalence.*: a variant of the serve command gives the same answers and logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..observation.answers import Completion, Reference
from ..spec.thresholds import Thresholds
from . import numerics
from .comparison import tie_margin
from .determinism import same_answer
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
    """Judges the rate of answers that are equal, or diverge only at a near-tie.

    Args:
        expected: case id -> the base server's answer.
        got: the same ids -> the variant's answer.
        references: the same ids -> the reference, whose bf16 error gives the size of rounding.
    """
    divergences = {
        case_id: divergence
        for case_id, answer in expected.items()
        if (divergence := _divergence(answer, got[case_id], references[case_id])) is not None
    }
    unexcused = [
        case_id for case_id, divergence in divergences.items() if not divergence.is_near_tie
    ]
    details: tuple[str, ...] = ()
    for case_id in unexcused[:1]:
        first = divergences[case_id]
        details = (
            f"{case_id}: the answers diverge at token {first.position + 1}, which the base server "
            f"preferred by {first.preferred_by}; rounding explains up to {first.tie:.3g} nats",
            *side_by_side(expected[case_id].text, got[case_id].text, "base"),
        )
    equal, near = len(expected) - len(divergences), len(divergences) - len(unexcused)
    rate = 1 - len(unexcused) / len(expected)
    reason = f"{equal} of {len(expected)} answers are equal, {near} diverge at near-ties"
    evidence = {"parted": {case_id: one.position for case_id, one in divergences.items()}}
    return at_least(rate, 1.0, "rate", reason, details, evidence)


def judge_similarity(
    expected: Mapping[str, Completion], got: Mapping[str, Completion], minimum: float
) -> Verdict:
    """Judges the mean character similarity of the answers of a lossy variant."""
    similarities = {
        case_id: similarity(a.text, got[case_id].text) for case_id, a in expected.items()
    }
    worst = min(similarities, key=lambda case_id: similarities[case_id])
    details = (
        f"the lowest similarity is in {worst}:",
        *side_by_side(expected[worst].text, got[worst].text),
    )
    mean = sum(similarities.values()) / len(similarities)
    equal = sum(1 for value in similarities.values() if value == 1.0)
    reason = f"mean character similarity; {equal} of {len(similarities)} answers are equal"
    evidence = {"similarity": {case_id: round(value, 4) for case_id, value in similarities.items()}}
    return at_least(mean, minimum, "similarity", reason, details, evidence)


def judge_error_ratio(
    statistics: ErrorStatistics, thresholds: Thresholds, *, is_lossy: bool
) -> Verdict:
    """Judges R of the variant's logits; for a lossy variant R is reported but not judged."""
    verdict = numerics.judge_error_ratio(
        statistics, numerics.NumericsThresholds.of_logits(thresholds)
    )
    if not is_lossy:
        return verdict
    no_threshold = float("inf")
    passed = verdict.measured <= no_threshold  # false for NaN
    return dataclasses.replace(verdict, passed=passed, threshold=no_threshold)


def _divergence(expected: Completion, got: Completion, reference: Reference) -> Divergence | None:
    if same_answer(expected, got):
        return None
    base, variant = expected.token_ids or (), got.token_ids or ()
    position = first_difference(base, variant)
    if position is None:
        position = len(base)  # one side reports no tokens
    return Divergence(
        position,
        token_at(base, position),
        token_at(variant, position),
        expected.preference_over(token_at(variant, position), position),
        _tie(reference, position),
    )


def _tie(reference: Reference, position: int) -> float:
    """Twice the tie margin, because here both sides are rounded."""
    numerics = reference.numerics
    if numerics is None:
        return _UNKNOWN_TIE
    known = min(position, len(numerics.token_ids))
    return 2 * tie_margin(numerics.peak_logit(known), numerics.logit_rmse)
