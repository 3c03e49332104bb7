"""Rules of baseline.order and baseline.frames: requests that look alike are not mistaken.

They have the same texts and the same images or frames, in another order or at other times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import PreconditionError
from ..observation.numerics import Forced, ReferenceNumerics
from ..spec.case import Case
from ..spec.thresholds import IMAGE_ERROR_RATIO
from .comparison import compare_prompts
from .error_statistics import ErrorStatistics
from .verdict import Verdict, at_most, largest


@dataclass(frozen=True, eq=False)
class Seen:
    """The logits of one request's prompt.

    Attributes:
        served: the served logits.
        own: the reference's.
        others: case id -> the reference's for each case that looks alike; at least one.
    """

    served: Forced
    own: ReferenceNumerics
    others: Mapping[str, ReferenceNumerics]


def reversed_images(case: Case, cases: Sequence[Case]) -> list[Case]:
    """The cases with the same texts and the same images as a case, in reversed order."""
    return [
        other
        for other in cases
        if case.every_image == other.every_image[::-1] != other.every_image
        and _texts(case) == _texts(other)
    ]


def other_clips(
    case: Case, cases: Sequence[Case], numerics: Mapping[str, ReferenceNumerics]
) -> list[Case]:
    """The cases that have the same texts as a case, prompts of its length, and another clip.

    Cases for which the reference has the same numbers are left out: some models do not see at what
    time a frame is shown.

    Args:
        case: the case.
        cases: cases with clips.
        numerics: case id -> the reference's numerics.
    """
    own = numerics[case.id]
    return [
        other
        for other in cases
        if _texts(other) == _texts(case)
        and np.array_equal(_prompt(numerics[other.id]), _prompt(own))
        and not np.array_equal(numerics[other.id].fp32, own.fp32)
    ]


def judge_seen(requests: Sequence[Seen], mistake: str) -> Verdict:
    """R of each request is at most `IMAGE_ERROR_RATIO`; the verdict has the largest.

    Compared are the positions of the prompt: its text, and its images or frames.

    Args:
        requests: one or more.
        mistake: a clause that says what is wrong if a request is mistaken for another.

    Raises:
        PreconditionError: the reference's numbers hardly differ between two requests.
    """
    ratios = {request.served.case_id: _ratios(request) for request in requests}
    for case_id, (own, others) in ratios.items():
        for other, ratio in others.items():
            if max(own, ratio) <= IMAGE_ERROR_RATIO:
                raise PreconditionError(
                    f"{case_id}: the numbers are those of {other} as well (R = {own:.2f} and "
                    f"{ratio:.2f}), so the two cannot be told apart. They are too similar for this "
                    "checkpoint."
                )
    worst = largest(ratios, lambda case_id: ratios[case_id][0])
    own, others = ratios[worst]
    nearest = _nearest(others)
    return at_most(
        own,
        IMAGE_ERROR_RATIO,
        "bf16 roundings",
        f"R = {own:.2f} against the reference for {worst}, {others[nearest]:.3g} for {nearest}",
        tuple(_conclusions(ratios, mistake)),
        {
            case_id: {name: round(ratio, 4) for name, ratio in {case_id: own, **others}.items()}
            for case_id, (own, others) in ratios.items()
        },
    )


def _conclusions(
    ratios: Mapping[str, tuple[float, Mapping[str, float]]], mistake: str
) -> Iterator[str]:
    """For each request that fails: the request whose numbers it got, if any."""
    for case_id, (own, others) in ratios.items():
        nearest = _nearest(others)
        if own <= IMAGE_ERROR_RATIO:
            continue
        if others[nearest] <= IMAGE_ERROR_RATIO:
            yield f"{case_id}: the numbers are those of {nearest}: {mistake}"
        else:
            yield f"{case_id}: the numbers are those of no request that looks alike"


def _nearest(others: Mapping[str, float]) -> str:
    return min(others, key=lambda other: others[other])


def _ratios(request: Seen) -> tuple[float, dict[str, float]]:
    others = {name: _ratio(request.served, other) for name, other in request.others.items()}
    return _ratio(request.served, request.own), others


def _ratio(served: Forced, numerics: ReferenceNumerics) -> float:
    return ErrorStatistics([compare_prompts(served, numerics)]).error_ratio.value


def _prompt(numerics: ReferenceNumerics) -> npt.NDArray[np.int64]:
    """The stored positions of a prompt."""
    return numerics.positions[: numerics.first_answer_row]


def _texts(case: Case) -> Case:
    """A case without what may differ between two cases that look alike."""
    return dataclasses.replace(case.without_media(), id="", accepted=())
