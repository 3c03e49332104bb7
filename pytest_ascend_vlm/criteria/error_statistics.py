"""Error statistics of compared numbers: the figures of adaptation documents, and R and K.

e(z) is the root mean square of z - y. R = e(x) / e(b) is the error in units of bf16's own rounding.
K is the same ratio of KL divergences from y. `comparison` defines x, y and b.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .comparison import CaseComparison, Table, divergence

_RESAMPLES = 1000
_SEED = 20250926
ONSET_ROUNDINGS = 4.0
"""The error of a position, in bf16 roundings, above which the position counts as an onset."""


@dataclass(frozen=True)
class Onset:
    """The earliest position whose error exceeds `ONSET_ROUNDINGS`.

    Attributes:
        position: the position; the prompt's first token is 1.
        part: "image", "prompt" or "answer".
        case_id: the case that has the position.
        error: the root mean square of x - y at the position.
        cases: the number of cases that have such a position.
    """

    position: int
    part: str
    case_id: str
    error: float
    cases: int


@dataclass(frozen=True)
class RoundingRatio:
    """An error in units of bf16's own rounding, with its 95 % interval over cases."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} (95 %: {self.low:.2f} to {self.high:.2f})"


class ErrorStatistics:
    """The error statistics of one or more cases, over all their positions.

    Attributes:
        comparisons: one comparison for each case.
    """

    def __init__(self, comparisons: Sequence[CaseComparison]) -> None:
        """Args: comparisons: one or more."""
        self.comparisons = comparisons
        self._exact = np.concatenate([one.exact for one in comparisons]).astype(np.float64)
        self._rounded = np.concatenate([one.rounded for one in comparisons]).astype(np.float64)
        self._observed = np.concatenate([one.observed for one in comparisons]).astype(np.float64)

    @property
    def numbers(self) -> str:
        """A description of the compared values: "raw logits of 32 tokens"."""
        return " and ".join(dict.fromkeys(case.numbers for case in self.comparisons))

    @property
    def positions(self) -> int:
        """The number of positions."""
        return len(self._exact)

    @property
    def images(self) -> int:
        """The number of cases with an image."""
        return sum(case.has_image for case in self.comparisons)

    @property
    def max_abs_error(self) -> float:
        """The largest absolute value of x - y."""
        return float(np.abs(self._observed - self._exact).max())

    @property
    def own_max_abs_error(self) -> float:
        """The largest absolute value of b - y."""
        return float(np.abs(self._rounded - self._exact).max())

    @property
    def mean_abs_error(self) -> float:
        """The mean absolute value of x - y."""
        return float(np.abs(self._observed - self._exact).mean())

    @property
    def relative_error(self) -> float:
        """The norm of x - y divided by the norm of y."""
        return float(np.linalg.norm(self._observed - self._exact) / np.linalg.norm(self._exact))

    @property
    def cosine_similarity(self) -> float:
        """The cosine similarity of x and y, each as one vector."""
        norms = np.linalg.norm(self._observed) * np.linalg.norm(self._exact)
        return float((self._observed * self._exact).sum() / norms)

    @property
    def lowest_cosine(self) -> float:
        """The lowest cosine similarity of x and y at a single position."""
        norms = np.linalg.norm(self._observed, axis=1) * np.linalg.norm(self._exact, axis=1)
        return float(((self._observed * self._exact).sum(axis=1) / norms).min())

    @property
    def within_one_percent(self) -> float:
        """The share of values of x that differ from y by at most 1 % of y."""
        return _share_within_one_percent(self._observed, self._exact)

    @property
    def own_within_one_percent(self) -> float:
        """The same share of b: even a sound bf16 engine does not reach 1."""
        return _share_within_one_percent(self._rounded, self._exact)

    @property
    def top5_match(self) -> float:
        """The share of positions where x and y have the same five most likely tokens."""
        same = [case.same_top for case in self.comparisons if case.same_top is not None]
        return float(np.concatenate(same).mean())

    @cached_property
    def error_ratio(self) -> RoundingRatio:
        """R: the root mean square error in units of the reference's own bf16 error."""
        squares = _resampled(
            self.comparisons, lambda case: (case.square_errors, case.own_square_errors)
        )
        return RoundingRatio(*(float(np.sqrt(value)) for value in squares))

    @cached_property
    def kl_ratio(self) -> RoundingRatio:
        """K: the mean KL divergence in units of the reference's own bf16 divergence."""
        return RoundingRatio(
            *_resampled(
                self.comparisons,
                lambda case: (
                    divergence(case.exact, case.observed),
                    divergence(case.exact, case.rounded),
                ),
            )
        )

    @cached_property
    def divergences(self) -> Table:
        """The KL divergence at each position: shape (positions,), nats."""
        return divergence(self._exact, self._observed)

    @property
    def flips(self) -> int:
        """The number of positions where x and y have different most likely tokens."""
        return sum(int(case.flips.sum()) for case in self.comparisons)

    @property
    def unexcused_flips(self) -> int:
        """The number of flips where the reference was not near a tie."""
        return sum(int(case.unexcused_flips.sum()) for case in self.comparisons)

    @property
    def ratio_by_part(self) -> dict[str, float]:
        """R of each part of the sequence: "image", "prompt" (its text) and "answer"."""
        part = np.concatenate([case.part for case in self.comparisons])
        square = np.concatenate([case.square_errors for case in self.comparisons])
        own = np.concatenate([case.own_square_errors for case in self.comparisons])
        return {
            name: _ratio(square[part == name], own[part == name]) ** 0.5
            for name in ("image", "prompt", "answer")
            if (part == name).any()
        }

    def errors_by_token(self, minimum: int) -> dict[int, float]:
        """Token id -> mean of x - y, in units of the root mean square of b - y.

        The mean of each row is subtracted from x - y first.

        Args:
            minimum: number of positions that have to list a token.
        """
        ids = [case.token_ids for case in self.comparisons if case.token_ids is not None]
        if not ids:
            return {}
        tokens = np.concatenate([table.ravel() for table in ids])
        errors = np.concatenate(
            [_centred(case.observed - case.exact).ravel() for case in self.comparisons]
        )
        own = np.sqrt(np.concatenate([case.own_square_errors for case in self.comparisons]).mean())
        listed, index = np.unique(tokens, return_inverse=True)
        counts = np.bincount(index)
        means = np.bincount(index, weights=errors) / counts / own
        enough = counts >= minimum
        return dict(zip(listed[enough].tolist(), means[enough].tolist(), strict=True))

    @property
    def onset(self) -> Onset | None:
        """The earliest onset of all cases, or None."""
        onsets = [onset for case in self.comparisons if (onset := _onset(case))]
        if not onsets:
            return None
        first = min(onsets, key=lambda onset: onset.position)
        return dataclasses.replace(first, cases=len(onsets))

    def summary(self) -> dict[str, float | str]:
        """The figures of adaptation documents and the ratios R and K, as JSON values."""
        figures: dict[str, float | str] = {
            "numbers": self.numbers,
            "positions": self.positions,
            "cases": len(self.comparisons),
            "images": self.images,
            "max_abs_error": self.max_abs_error,
            "mean_abs_error": self.mean_abs_error,
            "relative_error": self.relative_error,
            "cosine_similarity": self.cosine_similarity,
            "lowest_cosine": self.lowest_cosine,
            "within_1_percent": self.within_one_percent,
            "own_within_1_percent": self.own_within_one_percent,
            "R": self.error_ratio.value,
            "R_low": self.error_ratio.low,
            "R_high": self.error_ratio.high,
        }
        if self.comparisons[0].tie is not None:
            p99, p999 = np.quantile(self.divergences, [0.99, 0.999])
            figures |= {
                "K": self.kl_ratio.value,
                "K_low": self.kl_ratio.low,
                "K_high": self.kl_ratio.high,
                "kl_p99": float(p99),
                "kl_p99.9": float(p999),
                "flips": self.flips,
                "unexcused_flips": self.unexcused_flips,
            }
        if self.comparisons[0].same_top is not None:
            figures["top5_match"] = self.top5_match
        return figures


def per_position(case: CaseComparison) -> dict[str, Any]:
    """The error along a sequence, for a plot.

    Returns:
        JSON values. The lists have one item a position: `error` has the root mean square of x - y,
        `rounding` that of b - y. `image_runs` has the first position and the number of tokens of
        each run of image tokens, of which only some positions are compared.
    """
    return {
        "case": case.case_id,
        "position": case.positions.tolist(),
        "part": case.part.tolist(),
        "error": _rounded_list(np.sqrt(case.square_errors)),
        "rounding": _rounded_list(np.sqrt(case.own_square_errors)),
        "image_runs": [list(run) for run in case.image_runs],
    }


def _resampled(
    comparisons: Sequence[CaseComparison], measure: Callable[[CaseComparison], tuple[Table, Table]]
) -> tuple[float, float, float]:
    """The ratio of two sums over all positions, and the ends of its 95 % bootstrap interval.

    Whole cases are resampled, because the positions of one case are not independent.
    """
    sums = np.array([[part.sum() for part in measure(case)] for case in comparisons])
    chosen = np.random.default_rng(_SEED).integers(len(sums), size=(_RESAMPLES, len(sums)))
    drawn = sums[chosen].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(*sums.sum(axis=0))
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(ratio), float(low), float(high)


def _onset(case: CaseComparison) -> Onset | None:
    rounding = np.sqrt(case.own_square_errors.mean())
    error = np.sqrt(case.square_errors)
    off = np.flatnonzero(~(error <= ONSET_ROUNDINGS * rounding))
    if not len(off):
        return None
    first = off[0]
    return Onset(
        int(case.positions[first]) + 1, str(case.part[first]), case.case_id, float(error[first]), 1
    )


def _share_within_one_percent(values: Table, exact: Table) -> float:
    return float((np.abs(values - exact) <= 0.01 * np.abs(exact)).mean())


def _centred(errors: Table) -> Table:
    return np.asarray(errors - errors.mean(axis=1, keepdims=True))


def _ratio(numerator: Table, denominator: Table) -> float:
    if not numerator.any():
        return 0.0
    with np.errstate(divide="ignore"):
        return float(np.divide(numerator.sum(), denominator.sum()))


def _rounded_list(values: Table) -> list[float]:
    return [round(float(value), 5) for value in values]
