"""Declarations of the data sets that a model is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigurationError
from .field_types import require_types
from .thresholds import SCORE_TOLERANCE


@dataclass(frozen=True)
class PublishedScore:
    """A score that a document reports, without its samples.

    Attributes:
        value: the score, 0..1.
        samples: number of samples of the score.
        harness: the evaluation harness: "evalscope" or "lm_eval"; any other is refused.
        source: the document.
        stderr: the standard error of the score, 0..1; None for the standard error of a rate.
        version: the harness's version; None if the document does not state it.

    Raises:
        ConfigurationError: the score is outside 0..1, or there is no sample.
    """

    value: float
    samples: int
    harness: str
    source: str
    stderr: float | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        require_types(self)
        if not 0 <= self.value <= 1 or self.samples < 1:
            raise ConfigurationError(
                f"PublishedScore({self.value!r}, samples={self.samples!r}): a score is from 0 to 1 "
                "(36.3 % is 0.363) and has at least one sample."
            )

    @property
    def standard_error(self) -> float:
        """The published standard error, or the standard error of a rate if none is published."""
        if self.stderr is not None:
            return self.stderr
        return math.sqrt(self.value * (1 - self.value) / self.samples)


@dataclass(frozen=True)
class DatasetTask:
    """A data set that a model is judged by, in the criterion `dataset.<name>`.

    Attributes:
        name: "mmmu_val", "docvqa_val", ...
        harness: the harness that sends and scores the samples: "evalscope" or "lm_eval".
        published: the reference score if no samples of a reference are recorded.
        tolerance: how much lower than the reference's score the score may be, 0..1.
        because: why the tolerance is wider than the project's default.

    Raises:
        ConfigurationError: the tolerance is wider without a reason, or not between 0 and 1.
    """

    name: str
    harness: str = "evalscope"
    published: PublishedScore | None = None
    tolerance: float = SCORE_TOLERANCE
    because: str | None = None

    def __post_init__(self) -> None:
        require_types(self)
        if not 0 < self.tolerance < 1:
            raise ConfigurationError(
                f"DatasetTask({self.name!r}, tolerance={self.tolerance}): a tolerance is between "
                "0 and 1."
            )
        if self.tolerance > SCORE_TOLERANCE and not (self.because or "").strip():
            raise ConfigurationError(
                f"DatasetTask({self.name!r}, tolerance={self.tolerance}) is looser than the "
                f"project's {SCORE_TOLERANCE}. "
                'State the reason with because="...".'
            )
