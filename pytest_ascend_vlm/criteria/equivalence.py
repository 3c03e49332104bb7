"""Does the same model, served another way, behave the same?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ..observation.answers import Completion, Reference
from ..spec.thresholds import Thresholds
from . import numerics
from .comparison import tie_margin
from .error_statistics import ErrorStatistics
from .text import side_by_side, similarity
from .verdict import Verdict, at_least

_UNKNOWN_TIE = 0.0


@dataclass(frozen=True)
class Parting:
    """Where two answers part.

    Attributes:
        case_id: the case.
        position: index of the first differing token.
        margin: how far the one preferred its token to the other's, nats; infinite where it does
            not list it.
        tie: the margin up to which rounding on both sides can turn the choice, nats.
    """

    case_id: str
    position: int
    margin: float
    tie: float

    @property
    def is_near_tie(self) -> bool:
        """Whether rounding alone explains it."""
        return self.margin <= self.tie


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
    partings = [
        _parting(expected[case_id], got[case_id], references[case_id])
        for case_id in expected
        if got[case_id].token_ids != expected[case_id].token_ids
    ]
    beyond = [parting for parting in partings if not parting.is_near_tie]
    agreeing = len(expected) - len(beyond)
    details: tuple[str, ...] = ()
    for parting in beyond[:1]:
        details = (
            f"{parting.case_id}: they part at token {parting.position + 1}, which was preferred "
            f"by {parting.margin:.3g} nats; rounding explains up to {parting.tie:.3g}",
            *side_by_side(expected[parting.case_id].text, got[parting.case_id].text, "as served"),
        )
    equal = len(expected) - len(partings)
    reason = f"{equal} of {len(expected)} answers are equal, {len(partings) - len(beyond)} part at "
    evidence = {"parted": {one.case_id: one.position for one in partings}}
    return at_least(agreeing / len(expected), 1.0, "rate", f"{reason}near-ties", details, evidence)


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


def _parting(expected: Completion, got: Completion, reference: Reference) -> Parting:
    ours, theirs = expected.token_ids or (), got.token_ids or ()
    position = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    return Parting(
        expected.case_id,
        position,
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
