"""How far compared numbers are from fp32: an adaptation document's figures, and in roundings.

With e(z) the root mean square of z - y, R = e(x) / e(b) says how many of bf16's own roundings x is
off, and K does the same with the Kullback-Leibler divergence from y.
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
_ONSET = 4.0


@dataclass(frozen=True)
class Onset:
    """The earliest position that is off by several roundings.

    Attributes:
        position: counted from 1, the prompt's first token.
        part: "image", "prompt" or "answer".
        case_id: the case it is in.
        error: root mean square of x - y there.
        cases: number of cases that have such a position.
    """

    position: int
    part: str
    case_id: str
    error: float
    cases: int


@dataclass(frozen=True)
class RoundingRatio:
    """A multiple of bf16's own rounding, with its 95 % interval over cases."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} (95 %: {self.low:.2f} to {self.high:.2f})"


class ErrorStatistics:
    """What is measured of compared cases; everything is over all their positions."""

    def __init__(self, compared: Sequence[CaseComparison]) -> None:
        """Args: compared: one or more cases."""
        self.compared = compared
        self._exact = np.concatenate([case.exact for case in compared]).astype(np.float64)
        self._rounded = np.concatenate([case.rounded for case in compared]).astype(np.float64)
        self._observed = np.concatenate([case.observed for case in compared]).astype(np.float64)

    @property
    def numbers(self) -> str:
        """What was compared, in words."""
        return " and ".join(dict.fromkeys(case.numbers for case in self.compared))

    @property
    def positions(self) -> int:
        """Number of positions."""
        return len(self._exact)

    @property
    def images(self) -> int:
        """Number of cases with an image."""
        return sum(case.has_image for case in self.compared)

    @property
    def max_abs_error(self) -> float:
        """Largest absolute difference."""
        return float(np.abs(self._observed - self._exact).max())

    @property
    def own_max_abs_error(self) -> float:
        """The same of the reference's own bf16."""
        return float(np.abs(self._rounded - self._exact).max())

    @property
    def mean_abs_error(self) -> float:
        """Mean absolute difference."""
        return float(np.abs(self._observed - self._exact).mean())

    @property
    def relative_error(self) -> float:
        """Norm of the difference by the norm of y."""
        return float(np.linalg.norm(self._observed - self._exact) / np.linalg.norm(self._exact))

    @property
    def cosine_similarity(self) -> float:
        """Of all numbers as one vector."""
        norms = np.linalg.norm(self._observed) * np.linalg.norm(self._exact)
        return float((self._observed * self._exact).sum() / norms)

    @property
    def lowest_cosine(self) -> float:
        """The lowest of any one position."""
        norms = np.linalg.norm(self._observed, axis=1) * np.linalg.norm(self._exact, axis=1)
        return float(((self._observed * self._exact).sum(axis=1) / norms).min())

    @cached_property
    def error_ratio(self) -> RoundingRatio:
        """R: root mean square error, in the reference's own bf16 errors."""
        squares = _resampled(
            self.compared, lambda case: (case.square_errors, case.own_square_errors)
        )
        return RoundingRatio(*(float(np.sqrt(value)) for value in squares))

    @cached_property
    def kl_ratio(self) -> RoundingRatio:
        """K: mean Kullback-Leibler divergence, in the reference's own."""
        return RoundingRatio(
            *_resampled(
                self.compared,
                lambda case: (
                    divergence(case.exact, case.observed),
                    divergence(case.exact, case.rounded),
                ),
            )
        )

    @cached_property
    def divergences(self) -> Table:
        """Kullback-Leibler divergence at each position, nats."""
        return divergence(self._exact, self._observed)

    @property
    def flips(self) -> int:
        """Positions whose most likely token is another one."""
        return sum(int(case.flips.sum()) for case in self.compared)

    @property
    def unexcused_flips(self) -> int:
        """Those where the reference's margin was beyond rounding."""
        return sum(int(case.unexcused_flips.sum()) for case in self.compared)

    @property
    def ratio_by_part(self) -> dict[str, float]:
        """R of the image positions, the prompt's text and the answer, of those that there are."""
        part = np.concatenate([case.part for case in self.compared])
        square = np.concatenate([case.square_errors for case in self.compared])
        own = np.concatenate([case.own_square_errors for case in self.compared])
        return {
            name: _ratio(square[part == name], own[part == name]) ** 0.5
            for name in ("image", "prompt", "answer")
            if (part == name).any()
        }

    @property
    def onset(self) -> Onset | None:
        """The earliest position that is off by several roundings, if one is."""
        found = [onset for case in self.compared if (onset := _onset(case))]
        if not found:
            return None
        first = min(found, key=lambda onset: onset.position)
        return dataclasses.replace(first, cases=len(found))

    def summary(self) -> dict[str, float | str]:
        """The figures an adaptation document shows, and ours; JSON-able."""
        figures: dict[str, float | str] = {
            "numbers": self.numbers,
            "positions": self.positions,
            "cases": len(self.compared),
            "images": self.images,
            "max_abs_error": self.max_abs_error,
            "mean_abs_error": self.mean_abs_error,
            "relative_error": self.relative_error,
            "cosine_similarity": self.cosine_similarity,
            "lowest_cosine": self.lowest_cosine,
            "R": self.error_ratio.value,
            "R_low": self.error_ratio.low,
            "R_high": self.error_ratio.high,
        }
        if self.compared[0].tie is not None:
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
        return figures


def per_position(case: CaseComparison) -> dict[str, Any]:
    """The error along a sequence, for a plot: JSON-able lists of one length.

    Returns:
        `error` is the root mean square of x - y at each position, `rounding` that of b - y.
    """
    return {
        "case": case.case_id,
        "position": case.positions.tolist(),
        "part": case.part.tolist(),
        "error": _rounded_list(np.sqrt(case.square_errors)),
        "rounding": _rounded_list(np.sqrt(case.own_square_errors)),
    }


def _resampled(
    compared: Sequence[CaseComparison], measure: Callable[[CaseComparison], tuple[Table, Table]]
) -> tuple[float, float, float]:
    """RoundingRatio of two sums over all positions, and its 95 % bootstrap interval, by case."""
    sums = np.array([[part.sum() for part in measure(case)] for case in compared])
    chosen = np.random.default_rng(_SEED).integers(len(sums), size=(_RESAMPLES, len(sums)))
    drawn = sums[chosen].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(*sums.sum(axis=0))
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(ratio), float(low), float(high)


def _onset(case: CaseComparison) -> Onset | None:
    rounding = np.sqrt(case.own_square_errors.mean())
    error = np.sqrt(case.square_errors)
    off = np.flatnonzero(~(error <= _ONSET * rounding))
    if not len(off):
        return None
    first = off[0]
    return Onset(
        int(case.positions[first]) + 1, str(case.part[first]), case.case_id, float(error[first]), 1
    )


def _ratio(above: Table, below: Table) -> float:
    if not above.any():
        return 0.0
    with np.errstate(divide="ignore"):
        return float(np.divide(above.sum(), below.sum()))


def _rounded_list(values: Table) -> list[float]:
    return [round(float(value), 5) for value in values]
