"""Rules of baseline.order: several images of one request are seen in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..errors import PreconditionError
from ..observation.numerics import Forced, ReferenceNumerics
from ..spec.case import Case
from ..spec.thresholds import IMAGE_ERROR_RATIO
from .comparison import compare_prompts
from .error_statistics import ErrorStatistics
from .verdict import Verdict, at_most

Compared = tuple[Forced, ReferenceNumerics, ReferenceNumerics]
"""The served logits of a case, the reference's, and the reference's of the reversed images."""


def reversed_pairs(cases: Sequence[Case]) -> list[tuple[Case, Case]]:
    """Pairs of cases with the same texts, and the same images in reversed order."""
    return [
        (case, other)
        for case in cases
        for other in cases
        if case.every_image == other.every_image[::-1] != other.every_image
        and _texts(case) == _texts(other)
    ]


def judge_order(compared: Sequence[Compared]) -> Verdict:
    """R of each case is at most `IMAGE_ERROR_RATIO`; the verdict has the largest.

    Compared are the positions of the prompt: its text and its images.

    Raises:
        PreconditionError: the reference's numbers hardly depend on the order.
    """
    ratios = {
        forced.case_id: (_ratio(forced, own), _ratio(forced, reversed_))
        for forced, own, reversed_ in compared
    }
    for case_id, pair in ratios.items():
        if max(pair) <= IMAGE_ERROR_RATIO:
            raise PreconditionError(
                f"{case_id}: the numbers are those of both orders (R = {pair[0]:.2f} and "
                f"{pair[1]:.2f}), so the order of the images cannot be judged. The images are too "
                "similar for this checkpoint."
            )
    worst = max(ratios, key=lambda case_id: ratios[case_id][0])
    own_ratio, other_ratio = ratios[worst]
    swapped = other_ratio <= IMAGE_ERROR_RATIO < own_ratio
    conclusion = (
        "the numbers are those of the other order: the images of a request are exchanged"
        if swapped
        else "the numbers are those of neither order"
    )
    return at_most(
        own_ratio,
        IMAGE_ERROR_RATIO,
        "bf16 roundings",
        f"R = {own_ratio:.2f} against the reference with the images in this order, "
        f"{other_ratio:.3g} with them in the other order: {worst}",
        (conclusion,),
        {case_id: [round(ratio, 4) for ratio in pair] for case_id, pair in ratios.items()},
    )


def _texts(case: Case) -> Case:
    """A case without what may differ between the two cases of a pair."""
    return dataclasses.replace(case.without_media(), id="", accepted=())


def _ratio(forced: Forced, numerics: ReferenceNumerics) -> float:
    return ErrorStatistics([compare_prompts(forced, numerics)]).error_ratio.value
