"""Rules of tasks.*: questions about an image are answered, and boxes are found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ..spec.thresholds import IOU_TOLERANCE
from .verdict import Verdict, at_least

Box = tuple[float, float, float, float]

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_FOUR_NUMBERS = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]")


def judge_question(accepted: Sequence[str], answer: str, golden: str | None) -> Verdict:
    """One of the accepted answers occurs in the answer.

    Args:
        accepted: the answers that count as right.
        answer: the served model's answer.
        golden: the reference's answer, which contains one of them; None if there is none.
    """
    right = is_right(accepted, answer)
    reason = f"the answer {'names' if right else 'does not name'} {accepted[0]!r}"
    details = [f"got: {answer[:200]!r}"]
    if golden is not None:
        reason += f", {'as' if right else 'which'} the reference's does"
        details.append(f"the reference: {golden[:200]!r}")
    return at_least(
        float(right),
        1.0,
        "rate",
        reason,
        tuple(details),
        {"accepted": list(accepted), "got": answer},
    )


def unnamed_reason(accepted: Sequence[str], golden: str) -> str | None:
    """Reason why a question cannot be judged by a golden, or None.

    The served model is not required to know more than its reference.
    """
    if is_right(accepted, golden):
        return None
    return f"the reference does not name {accepted[0]!r} itself"


def is_right(accepted: Sequence[str], answer: str) -> bool:
    """True if one of the accepted answers occurs in an answer as a whole word."""
    folded = _folded(answer)
    return any(re.search(_whole_word(_folded(right)), folded) for right in accepted)


def _whole_word(text: str) -> str:
    """A pattern for a whole word: it finds "3" in "有3个" and "3,5", but not in "13" or "3.5".

    A comma belongs to a number only if three digits follow, as in "1,300".
    """
    before, after = "(?<![0-9A-Za-z])", "(?![0-9A-Za-z])"
    if re.match("[0-9]", text):
        before += r"(?<![0-9]\.)"
    if re.match("[0-9]{3}(?![0-9])", text):
        before += "(?<![0-9],)"
    if re.search("[0-9]$", text):
        after += r"(?!\.[0-9]|,[0-9]{3}(?![0-9]))"
    return before + re.escape(text) + after


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def judge_box(truth: Box, answer: Box | None, golden: Box | None, threshold: float) -> Verdict:
    """The IoU of the answered box reaches the threshold, and the golden's IoU minus a tolerance.

    Args:
        truth: the true box, (left, top, right, bottom) in pixels.
        answer: the answered box; None if the answer contains no box.
        golden: the reference's box.
        threshold: minimum intersection over union, 0..1.
    """
    reference = iou(truth, golden)
    return at_least(
        iou(truth, answer),
        max(threshold, reference - IOU_TOLERANCE),
        "IoU",
        "intersection over union with the true box",
        (f"true box: {truth}", f"answered: {answer or 'no box'}", f"the reference: {golden}"),
        {"truth": list(truth), "box": list(answer) if answer else None, "golden_iou": reference},
    )


def no_box_reason(truth: Box, golden: Box | None, threshold: float) -> str | None:
    """Reason why a box cannot be judged by a golden, or None: the golden's IoU is too low."""
    measured = iou(truth, golden)
    if measured >= threshold:
        return None
    return (
        "the reference does not find the box itself: "
        f"its IoU is {measured:.3g}, below {threshold:g}"
    )


def iou(one: Box, other: Box | None) -> float:
    """Intersection over union of two boxes, 0..1; 0 if there is no box or it has no area."""
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
    """The first box in an answer, in pixels, or None.

    Args:
        answer: JSON with a `bbox_2d`, fenced or not, or any text with four bracketed numbers.
        size: (width, height) of the image in pixels.
        box_scale: the coordinate that stands for the full width or height of the image: 1000 if
            coordinates are thousandths; None if they are pixels.
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
    match = _FOUR_NUMBERS.search(answer)
    if match is None:
        return None
    left, top, right, bottom = (float(number) for number in match.groups())
    return (left, top, right, bottom)
