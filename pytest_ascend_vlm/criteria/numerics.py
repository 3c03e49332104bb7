"""Rules of numerics.*: the served logits and hidden states equal the reference's up to rounding.

y is the reference in float32, b the reference in bf16, x the numbers that are judged. All three are
computed on one forced sequence. R and K are x's error in units of b's error. We use them because a
cosine similarity above 0.99 separates almost no defect from rounding (table in docs/numerics.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import PreconditionError
from ..spec.thresholds import (
    ENOUGH_IMAGE_POSITIONS,
    ENOUGH_IMAGES,
    ENOUGH_POSITIONS,
    ENOUGH_ROWS,
    FLOAT32_ERROR_RATIO,
    IMAGE_ERROR_RATIO,
    PART_ERROR_RATIO,
    TOKEN_ERROR,
    Thresholds,
)
from .comparison import CaseComparison
from .error_statistics import ONSET_ROUNDINGS, ErrorStatistics, per_position
from .verdict import Verdict, at_least, at_most, largest

_SHOWN_TOKENS = 5


@dataclass(frozen=True)
class NumericsThresholds:
    """The thresholds for logits, or for hidden states, and the unit of the numbers."""

    unit: str

    max_abs_error: float
    cosine_similarity: float
    error_ratio: float
    kl_ratio: float
    flips: float

    @staticmethod
    def of_logits(thresholds: Thresholds) -> NumericsThresholds:
        """The thresholds of a model for logits."""
        return NumericsThresholds(
            "logits",
            thresholds.logits_max_abs,
            thresholds.logits_cosine,
            thresholds.error_ratio,
            thresholds.kl_ratio,
            thresholds.top1_flips,
        )

    @staticmethod
    def of_hidden_states(thresholds: Thresholds) -> NumericsThresholds:
        """The thresholds of a model for hidden states."""
        return NumericsThresholds(
            "hidden units",
            thresholds.hidden_max_abs,
            thresholds.hidden_cosine,
            thresholds.error_ratio,
            np.inf,
            1.0,
        )


def judge_max_abs_error(statistics: ErrorStatistics, thresholds: NumericsThresholds) -> Verdict:
    """The largest error is at most the threshold.

    If the reference's own bf16 is off by more than half of the threshold, the threshold is twice
    the reference's error.
    """
    own = statistics.own_max_abs_error
    maximum = max(thresholds.max_abs_error, 2 * own)
    raised = maximum > thresholds.max_abs_error
    why = f"; the threshold is twice the reference's own bf16 error of {own:.3g}" if raised else ""
    return at_most(
        statistics.max_abs_error,
        maximum,
        thresholds.unit,
        f"largest absolute error: {_sample_description(statistics)}{why}",
        error_location(statistics),
        statistics.summary(),
    )


def judge_cosine_similarity(statistics: ErrorStatistics, thresholds: NumericsThresholds) -> Verdict:
    """The cosine similarity of all numbers as one vector is at least the threshold."""
    return at_least(
        statistics.cosine_similarity,
        thresholds.cosine_similarity,
        "cosine",
        f"cosine similarity: {_sample_description(statistics)}",
        error_location(statistics),
        statistics.summary(),
    )


def judge_error_ratio(statistics: ErrorStatistics, thresholds: NumericsThresholds) -> Verdict:
    """R, the error in units of the reference's own bf16 error, is at most the threshold."""
    ratio = statistics.error_ratio
    return at_most(
        ratio.value,
        thresholds.error_ratio,
        "bf16 roundings",
        f"R = {ratio}: {_sample_description(statistics)}",
        error_location(statistics),
        {
            **statistics.summary(),
            "per_position": [per_position(case) for case in statistics.comparisons],
        },
    )


def judge_kl_ratio(statistics: ErrorStatistics, thresholds: NumericsThresholds) -> Verdict:
    """K, the KL divergence in units of the reference's own, is at most the threshold."""
    ratio = statistics.kl_ratio
    return at_most(
        ratio.value,
        thresholds.kl_ratio,
        "bf16 divergences",
        f"K = {ratio}: {_sample_description(statistics)}",
        error_location(statistics),
        statistics.summary(),
    )


def judge_top1_flips(statistics: ErrorStatistics, thresholds: NumericsThresholds) -> Verdict:
    """The rate of other most likely tokens, without near-ties, is at most the threshold."""
    flips, excused = statistics.flips, statistics.flips - statistics.unexcused_flips
    return at_most(
        statistics.unexcused_flips / statistics.positions,
        thresholds.flips,
        "rate",
        f"{flips} other most likely tokens, {excused} of them at near-ties: "
        f"{_sample_description(statistics)}",
        error_location(statistics),
        statistics.summary(),
    )


Rule = Callable[[ErrorStatistics, NumericsThresholds], Verdict]
LOGIT_RULES: dict[str, Rule] = {
    "error_ratio": judge_error_ratio,
    "kl_ratio": judge_kl_ratio,
    "max_abs_error": judge_max_abs_error,
    "cosine_similarity": judge_cosine_similarity,
    "top1_flips": judge_top1_flips,
}
HIDDEN_STATE_RULES: dict[str, Rule] = {
    name: LOGIT_RULES[name] for name in ("error_ratio", "max_abs_error", "cosine_similarity")
}


def judge_image(comparison: CaseComparison) -> Verdict:
    """R of one case, and R of its image positions, are at most `IMAGE_ERROR_RATIO`.

    Frames of a clip are images. Fewer than `ENOUGH_IMAGE_POSITIONS` are judged only as a part of
    the case: the text behind them depends on them.
    """
    statistics = ErrorStatistics([comparison])
    ratios = {"all": statistics.error_ratio.value, **statistics.ratio_by_part}
    count = int((comparison.part == "image").sum())
    judged = ("all", "image") if count >= ENOUGH_IMAGE_POSITIONS else ("all",)
    of_images = f", {ratios['image']:.2f} at {count} of images" if count else ""
    too_few = " (too few to judge by themselves)" if count and "image" not in judged else ""
    return at_most(
        largest((ratios[part] for part in judged), float),
        IMAGE_ERROR_RATIO,
        "bf16 roundings",
        f"R = {ratios['all']:.2f} at {statistics.positions} positions{of_images}{too_few}",
        error_location(statistics),
        {
            "ratios": {part: round(float(ratio), 4) for part, ratio in ratios.items()},
            "image_positions": count,
            "onset_behind_image": _onset_behind_image(statistics, comparison),
        },
    )


def _onset_behind_image(statistics: ErrorStatistics, comparison: CaseComparison) -> int | None:
    """Number of tokens from the first image token to the first large error; None if unknown."""
    if statistics.onset is None or not comparison.image_runs:
        return None
    return statistics.onset.position - 1 - comparison.image_runs[0][0]


def judge_tokens(statistics: ErrorStatistics) -> Verdict:
    """No token's logit is off in the same direction everywhere.

    The error of a token is the mean of x - y over all positions that list it. At each position the
    mean of the row is subtracted first, so log-probabilities and raw logits give the same result.
    The unit is the reference's own bf16 error.
    """
    errors = statistics.errors_by_token(ENOUGH_ROWS)
    if not errors:
        raise PreconditionError(
            f"no token is listed at {ENOUGH_ROWS} or more positions, so errors of single tokens "
            "cannot be judged"
        )
    worst = largest(errors, lambda token: abs(errors[token]))
    few = sorted(errors, key=lambda token: -abs(errors[token]))[:_SHOWN_TOKENS]
    return at_most(
        abs(errors[worst]),
        TOKEN_ERROR,
        "bf16 roundings",
        f"the largest mean error of a single token is that of token {worst}; {len(errors)} tokens "
        f"are listed at {ENOUGH_ROWS} or more positions",
        (
            "largest mean errors: "
            + ", ".join(f"token {token} {errors[token]:+.2f}" for token in few),
        ),
        {"errors": {str(token): round(errors[token], 4) for token in few}},
    )


def judge_float32(statistics: ErrorStatistics) -> Verdict:
    """R of the engine in float32 is at most `FLOAT32_ERROR_RATIO`."""
    ratio = statistics.error_ratio
    return at_most(
        ratio.value,
        FLOAT32_ERROR_RATIO,
        "bf16 roundings",
        f"R in float32 = {ratio.value:.2g}: {_sample_description(statistics)}",
        error_location(statistics),
        statistics.summary(),
    )


def with_operators(verdict: Verdict, ratio: float | str) -> Verdict:
    """Adds to a failed verdict whether Transformers on the same device is wrong as well.

    Args:
        verdict: the verdict on the served engine.
        ratio: R of Transformers on the device, or the reason why it is unknown.
    """
    if isinstance(ratio, str):
        line = f"Transformers on the same device did not run: {ratio}"
    elif ratio <= PART_ERROR_RATIO:
        line = f"Transformers on the same device is right (R = {ratio:.2f}): look at the engine"
    else:
        line = (
            f"Transformers on the same device is wrong too (R = {ratio:.2f}): look at the device's "
            "operators"
        )
    return dataclasses.replace(verdict, details=(*verdict.details, line))


def error_location(statistics: ErrorStatistics) -> tuple[str, ...]:
    """Lines that locate the error: R of each part of the sequence, and the earliest large error."""
    ratios = statistics.ratio_by_part
    shown = ", ".join(f"{part} {ratio:.2f}" for part, ratio in ratios.items())
    lines = [f"R by part of the sequence: {shown}"]
    if onset := statistics.onset:
        lines.append(
            f"the first error above {ONSET_ROUNDINGS:g} roundings is {onset.error:.3g}, at "
            f"position {onset.position} ({onset.part}) of {onset.case_id}; {onset.cases} of "
            f"{len(statistics.comparisons)} cases have such an error"
        )
    if advice := _suspected_component(ratios):
        lines.append(advice)
    return tuple(lines)


def _suspected_component(ratios: Mapping[str, float]) -> str | None:
    wrong = {part for part, ratio in ratios.items() if not ratio <= PART_ERROR_RATIO}
    if wrong == {"image"}:
        return "only image positions are wrong: look at the vision tower and its inputs"
    if wrong and "image" in ratios and "image" not in wrong:
        return "image positions are right, text positions are wrong: look at the language model"
    return None


def _sample_description(statistics: ErrorStatistics) -> str:
    text = (
        f"{statistics.numbers} at {statistics.positions} positions of "
        f"{len(statistics.comparisons)} cases, {statistics.images} with an image"
    )
    if statistics.positions >= ENOUGH_POSITIONS and statistics.images >= ENOUGH_IMAGES:
        return text
    return f"{text}; {ENOUGH_POSITIONS} positions and {ENOUGH_IMAGES} images are recommended"
