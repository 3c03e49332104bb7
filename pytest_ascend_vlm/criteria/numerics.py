"""Are the served numbers those of the reference, up to rounding?

y is the reference in float32, b the reference in bf16, x what is judged; all three on one forced
sequence. R and K count x's error in b's. They were chosen because cosine similarity above 0.99
tells next to no defect from rounding (docs/numerics.md has the table).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..spec.thresholds import (
    ENOUGH_IMAGES,
    ENOUGH_POSITIONS,
    FLOAT32_ERROR_RATIO,
    PART_ERROR_RATIO,
    Thresholds,
)
from .error_statistics import ErrorStatistics, per_position
from .verdict import Verdict, at_least, at_most


@dataclass(frozen=True)
class NumericsThresholds:
    """What logits, or hidden states, are held against, and the unit of both."""

    unit: str

    max_abs_error: float
    cosine_similarity: float
    error_ratio: float
    kl_ratio: float
    flips: float

    @staticmethod
    def of_logits(bars: Thresholds) -> NumericsThresholds:
        """A model's bars for logits."""
        return NumericsThresholds(
            "logits",
            bars.logits_max_abs,
            bars.logits_cosine,
            bars.error_ratio,
            bars.kl_ratio,
            bars.top1_flips,
        )

    @staticmethod
    def of_hidden_states(bars: Thresholds) -> NumericsThresholds:
        """A model's bars for hidden states."""
        return NumericsThresholds(
            "hidden units", bars.hidden_max_abs, bars.hidden_cosine, bars.error_ratio, np.inf, 1.0
        )


def judge_max_abs_error(measures: ErrorStatistics, bars: NumericsThresholds) -> Verdict:
    """The largest error is below the bar, or below twice that of the reference's own bf16."""
    own = measures.own_max_abs_error
    bar = max(bars.max_abs_error, 2 * own)
    why = "" if bar == bars.max_abs_error else f"; the reference's own bf16 is off by {own:.3g}"
    reason = f"largest absolute error: {_sample_description(measures)}{why}"
    return at_most(
        measures.max_abs_error, bar, bars.unit, reason, error_location(measures), measures.summary()
    )


def judge_cosine_similarity(measures: ErrorStatistics, bars: NumericsThresholds) -> Verdict:
    """All numbers as one vector point where the reference's do."""
    return at_least(
        measures.cosine_similarity,
        bars.cosine_similarity,
        "cosine",
        f"cosine similarity: {_sample_description(measures)}",
        error_location(measures),
        measures.summary(),
    )


def judge_error_ratio(measures: ErrorStatistics, bars: NumericsThresholds) -> Verdict:
    """R: the error is at most so many of the reference's own bf16 errors."""
    ratio = measures.error_ratio
    return at_most(
        ratio.value,
        bars.error_ratio,
        "bf16 roundings",
        f"R = {ratio}: {_sample_description(measures)}",
        error_location(measures),
        {**measures.summary(), "per_position": [per_position(case) for case in measures.compared]},
    )


def judge_kl_ratio(measures: ErrorStatistics, bars: NumericsThresholds) -> Verdict:
    """K: the divergence is at most so many of the reference's own bf16 divergences."""
    ratio = measures.kl_ratio
    return at_most(
        ratio.value,
        bars.kl_ratio,
        "bf16 divergences",
        f"K = {ratio}: {_sample_description(measures)}",
        error_location(measures),
        measures.summary(),
    )


def judge_top1_flips(measures: ErrorStatistics, bars: NumericsThresholds) -> Verdict:
    """Few positions have another most likely token, near-ties of the reference excused."""
    found, excused = measures.flips, measures.flips - measures.unexcused_flips
    return at_most(
        measures.unexcused_flips / measures.positions,
        bars.flips,
        "rate",
        f"{found} other most likely tokens, {excused} of them near-ties: "
        f"{_sample_description(measures)}",
        error_location(measures),
        measures.summary(),
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


def judge_float32(measures: ErrorStatistics) -> Verdict:
    """R of the engine in float32: next to nothing of bf16's rounding is left."""
    ratio = measures.error_ratio
    return at_most(
        ratio.value,
        FLOAT32_ERROR_RATIO,
        "bf16 roundings",
        f"R in float32 = {ratio.value:.2g}: {_sample_description(measures)}",
        error_location(measures),
        measures.summary(),
    )


def with_operators(verdict: Verdict, ratio: float | str) -> Verdict:
    """A failed verdict that says whether Transformers on the same device is off too.

    Args:
        verdict: of the served engine.
        ratio: R of Transformers on the device, or why there is none.
    """
    if isinstance(ratio, str):
        line = f"Transformers on the same device could not be asked: {ratio}"
    elif ratio <= PART_ERROR_RATIO:
        line = f"Transformers on the same device is sound (R = {ratio:.2f}): look at the engine"
    else:
        line = (
            f"Transformers on the same device is off too (R = {ratio:.2f}): look at its operators"
        )
    return dataclasses.replace(verdict, details=(*verdict.details, line))


def error_location(measures: ErrorStatistics) -> tuple[str, ...]:
    """Where the error is: in which parts of the sequence, and from which position on."""
    ratios = measures.ratio_by_part
    shown = ", ".join(f"{part} {ratio:.2f}" for part, ratio in ratios.items())
    lines = [f"in bf16 roundings by part of the sequence: {shown}"]
    if onset := measures.onset:
        lines.append(
            f"first off by several roundings at position {onset.position} ({onset.part}) of "
            f"{onset.case_id}, by {onset.error:.3g}; so somewhere in {onset.cases} of "
            f"{len(measures.compared)} cases"
        )
    if suspect := _likely_culprit(ratios):
        lines.append(suspect)
    return tuple(lines)


def _likely_culprit(ratios: Mapping[str, float]) -> str | None:
    off = {part for part, ratio in ratios.items() if not ratio <= PART_ERROR_RATIO}
    if off == {"image"}:
        return "only image positions are off: look at the vision tower and its inputs"
    if off and "image" in ratios and "image" not in off:
        return "image positions are sound, text is not: look at the language model"
    return None


def _sample_description(measures: ErrorStatistics) -> str:
    text = (
        f"{measures.numbers} at {measures.positions} positions of {len(measures.compared)} cases, "
        f"{measures.images} with an image"
    )
    few = measures.positions < ENOUGH_POSITIONS or measures.images < ENOUGH_IMAGES
    asked = f"; {ENOUGH_POSITIONS} positions and {ENOUGH_IMAGES} images are asked for"
    return text + (asked if few else "")
