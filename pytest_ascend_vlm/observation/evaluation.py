"""What an evaluation harness found, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """What settles a score besides the model; scores compare only where all of it is equal.

    Attributes:
        harness: "evalscope" or "lm_eval".
        version: its version.
        benchmark: its own name of the task.
        metric: the per-sample score.
        dataset_sha256: digest of the data set's files.
    """

    harness: str
    version: str
    benchmark: str
    metric: str
    dataset_sha256: str


@dataclass(frozen=True)
class Sample:
    """One scored answer.

    Attributes:
        score: 0..1.
        category: the part of the data set it belongs to: a subject of MMMU.
        prompt: digest of the text that was asked.
        answer: what was answered; empty in a stored reference.
        target: what was right; empty in a stored reference.
    """

    score: float
    category: str
    prompt: str
    answer: str = ""
    target: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What a harness found.

    Attributes:
        protocol: how it was found.
        samples: by id; an id means the same in every run of one protocol.
        total: samples that the data set has.
        limit: the first so many of each subset were asked; None for all.
        resumed: how many of the answers were those of a run that was interrupted.
        engine: who answered, of a stored reference.
    """

    protocol: Protocol
    samples: Mapping[str, Sample]
    total: int
    limit: int | None = None
    resumed: int = 0
    engine: str = ""

    @property
    def score(self) -> float:
        """The mean over the samples."""
        return math.fsum(sample.score for sample in self.samples.values()) / len(self.samples)

    @property
    def is_complete(self) -> bool:
        """Whether it is of the whole data set."""
        return self.limit is None and len(self.samples) == self.total

    @property
    def extent(self) -> str:
        """How much of the data set it is of, in words."""
        if self.is_complete:
            return f"all {self.total} samples"
        return f"A SUBSET, {len(self.samples)} of {self.total} samples"
