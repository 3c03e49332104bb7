"""What a model declares of the data sets that it is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import ConfigurationError
from .thresholds import SCORE_TOLERANCE


@dataclass(frozen=True)
class PublishedScore:
    """A score that a document reports, without its samples.

    Attributes:
        value: the score, 0..1.
        samples: how many samples it is of.
        harness: what it was measured with: "evalscope", "lm_eval"; any other is refused.
        source: the document.
        stderr: its standard error, 0..1; None for that of a rate.
        version: the harness's version; None where the document does not tell.

    Raises:
        ConfigurationError: it is no rate of anything.
    """

    value: float
    samples: int
    harness: str
    source: str
    stderr: float | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1 or self.samples < 1:
            raise ConfigurationError(
                f"PublishedScore({self.value!r}, samples={self.samples!r}): a score is from 0 to 1 "
                "(36.3 % is 0.363), of at least one sample."
            )

    @property
    def standard_error(self) -> float:
        """The published one, else that of a rate."""
        if self.stderr is not None:
            return self.stderr
        return math.sqrt(self.value * (1 - self.value) / self.samples)


@dataclass(frozen=True)
class DatasetTask:
    """A data set that a model is judged by; it names the criterion, `dataset.<name>`.

    Attributes:
        name: "mmmu_val", "docvqa_val", ...
        harness: what asks and scores: "evalscope" or "lm_eval".
        published: the reference where no samples were recorded.
        tolerance: how much lower than the reference's the score may be, 0..1.
        because: why it is wider than the project's.

    Raises:
        ConfigurationError: the tolerance is wider without a reason, or not between 0 and 1.
    """

    name: str
    harness: str = "evalscope"
    published: PublishedScore | None = None
    tolerance: float = SCORE_TOLERANCE
    because: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise ConfigurationError(f"DatasetTask({self.name!r}): a tolerance is between 0 and 1.")
        if self.tolerance > SCORE_TOLERANCE and not self.because:
            raise ConfigurationError(
                f"DatasetTask({self.name!r}, tolerance={self.tolerance}) is looser than the "
                f"project's {SCORE_TOLERANCE}; "
                'say why with because="...".'
            )
