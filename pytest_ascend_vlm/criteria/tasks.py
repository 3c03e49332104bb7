"""Is a question about a picture answered, and is what was asked for found where it is?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ..spec.thresholds import IOU_TOLERANCE
from .verdict import Verdict, at_least

Box = tuple[float, float, float, float]

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_FOUR_NUMBERS = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")


def judge_question(accepted: Sequence[str], answer: str, golden: str) -> Verdict:
    """One of the accepted answers occurs in the answer.

    Args:
        accepted: answers of which any one is right.
        answer: what the served model said.
        golden: what the reference said, which names one of them.
    """
    right = is_right(accepted, answer)
    found = "names {!r}, as" if right else "does not name {!r}, which"
    return at_least(
        float(right),
        1.0,
        "rate",
        f"the answer {found.format(accepted[0])} the reference's does",
        (f"got: {answer[:200]!r}", f"the reference: {golden[:200]!r}"),
        {"accepted": list(accepted), "got": answer},
    )


def unnamed_reason(accepted: Sequence[str], golden: str) -> str | None:
    """Why a question cannot be judged by a golden, or None where it can.

    A model is not asked to know more than its reference.
    """
    if is_right(accepted, golden):
        return None
    return f"the reference does not name {accepted[0]!r} itself"


def is_right(accepted: Sequence[str], answer: str) -> bool:
    """Whether one of the accepted answers occurs in an answer, as a whole word."""
    said = _folded(answer)
    return any(re.search(_whole_word(_folded(right)), said) for right in accepted)


def _whole_word(text: str) -> str:
    """A pattern that does not find "3" in "13", and finds it in "有3个"."""
    return rf"(?<![0-9A-Za-z]){re.escape(text)}(?![0-9A-Za-z])"


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def judge_box(truth: Box, answer: Box | None, golden: Box | None, threshold: float) -> Verdict:
    """The answered box overlaps the true one as asked, and no worse than the golden's.

    Args:
        truth: (left, top, right, bottom) in pixels.
        answer: the same as answered; None where the answer holds no box.
        golden: the same of the reference, which found it.
        threshold: least intersection over union.
    """
    reached, reference = iou(truth, answer), iou(truth, golden)
    return at_least(
        reached,
        max(threshold, reference - IOU_TOLERANCE),
        "IoU",
        "intersection over union with the true box",
        (f"true box: {truth}", f"answered: {answer or 'no box'}", f"the reference: {golden}"),
        {"truth": list(truth), "box": list(answer) if answer else None, "golden_iou": reference},
    )


def no_box_reason(truth: Box, golden: Box | None, threshold: float) -> str | None:
    """Why a box cannot be judged by a golden, or None where it can.

    A reference box with an IoU below the threshold has not found it either.
    """
    reached = iou(truth, golden)
    if reached >= threshold:
        return None
    return (
        f"the reference does not find the box itself: its IoU is {reached:.3g}, below {threshold:g}"
    )


def iou(one: Box, other: Box | None) -> float:
    """Intersection over union of two boxes, 0..1; 0 for no box and for one without an area."""
    if other is None:
        return 0.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    union = _area(one) + _area(other) - shared
    # Sides of 1e-200 have an area of 0; rounding may leave a union a little below the shared part.
    return min(shared / union, 1.0) if union > 0 else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def read_box(answer: str, size: tuple[int, int], box_scale: int | None) -> Box | None:
    """The first box in an answer, in pixels; None where there is none.

    Args:
        answer: JSON with a `bbox_2d`, fenced or not, or any text with four bracketed numbers.
        size: (width, height) of the image in pixels.
        box_scale: what the coordinates count: None for pixels, 1000 for thousandths of the size.
    """
    numbers = _numbers(answer)
    if numbers is None:
        return None
    if box_scale is None:
        return numbers
    width, height = (side / box_scale for side in size)
    left, top, right, bottom = numbers
    return (left * width, top * height, right * width, bottom * height)


def _numbers(answer: str) -> Box | None:
    found = _FOUR_NUMBERS.search(answer)
    if found is None:
        return None
    left, top, right, bottom = (float(number) for number in found.groups())
    return (left, top, right, bottom)
