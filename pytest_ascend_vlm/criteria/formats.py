"""Rules of serving.encodings, serving.formats and serving.urls: a file is read as it is shown.

The unit of a difference is the reference's own bf16 error, as for R. Both sides are computed by the
served model.
"""

from __future__ import annotations

import math

from ..errors import PreconditionError
from ..observation.answers import Refusal
from ..observation.numerics import Forced
from ..observation.reading import Reading
from ..spec.thresholds import FORMAT_RATIO
from .comparison import score_difference
from .recomputed import cold_evidence
from .verdict import Verdict, at_most, checklist


def judge_reading(reading: Reading) -> Verdict:
    """The file's scores are those of the picture that the file shows."""
    file = reading.file
    if isinstance(file, Refusal):
        return checklist({"answered": str(file)})
    mistake = _mistake(file, reading)
    lines = () if mistake is None else (f"the server misreads the file: {mistake}",)
    return at_most(
        difference(file, reading.picture, reading.own_error),
        FORMAT_RATIO,
        "bf16 roundings",
        "the log-probabilities of a forced answer, compared with those for an RGB PNG",
        (*lines, *_prompts(file, reading.picture)),
        {"misread": mistake, **(cold_evidence(reading.caches) if reading.is_cold else {})},
    )


def agrees(reading: Reading) -> bool:
    """True if the file's scores are those of the picture; False if the server refused the file."""
    if isinstance(reading.file, Refusal):
        return False
    return difference(reading.file, reading.picture, reading.own_error) <= FORMAT_RATIO


def difference(first: Forced, other: Forced, own_error: float) -> float:
    """The difference of two scores of one answer, in units of the reference's own bf16 error.

    It is infinite if the two prompts differ.
    """
    if first.prompt_token_ids != other.prompt_token_ids:
        return math.inf
    return score_difference(first, other) / own_error


def require_sight(picture: Forced, blank: Forced, own_error: float) -> None:
    """Checks that a picture has an effect on the scores.

    Raises:
        PreconditionError: a blank image of the same size gets the scores of the picture.
    """
    measured = difference(picture, blank, own_error)
    if measured <= FORMAT_RATIO:
        raise PreconditionError(
            f"{picture.case_id}: a blank image gets the log-probabilities of the picture (they "
            f"differ by {measured:.3g} bf16 roundings), so a misread file could not be detected. "
            "Look at serving.image and numerics.images first."
        )


def _mistake(file: Forced, reading: Reading) -> str | None:
    """The way to misread the file that gives the file's scores, or None."""
    ratios = {
        name: difference(file, scores, reading.own_error)
        for name, scores in reading.mistakes.items()
    }
    fitting = {name: ratio for name, ratio in ratios.items() if ratio <= FORMAT_RATIO}
    return min(fitting, key=lambda name: fitting[name], default=None)


def _prompts(file: Forced, picture: Forced) -> tuple[str, ...]:
    got, expected = file.prompt_token_ids or (), picture.prompt_token_ids or ()
    if got == expected:
        return ()
    return (
        f"the prompts differ: {len(got)} tokens with the file, {len(expected)} with the RGB PNG, "
        "so the image has another size or other tiles",
    )
