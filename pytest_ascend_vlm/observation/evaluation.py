"""The result of an evaluation harness, and its protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """Everything besides the model that determines a score.

    Two scores compare only if all fields are equal.

    Attributes:
        harness: "evalscope" or "lm_eval".
        version: the harness's version.
        benchmark: the harness's name of the task.
        metric: the name of the score of a sample.
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
        category: the sample's part of the data set, a subject of MMMU for example.
        prompt: digest of the prompt's text.
        answer: the model's answer; empty in a stored reference.
        target: the right answer; empty in a stored reference.
    """

    score: float
    category: str
    prompt: str
    answer: str = ""
    target: str = ""


@dataclass(frozen=True)
class Evaluation:
    """The result of a harness.

    Attributes:
        protocol: the protocol of the evaluation.
        samples: id -> sample; an id names the same sample in every run of one protocol.
        total: number of samples in the data set.
        limit: N if only the first N samples of each subset were evaluated; None for all.
        resumed: number of answers that come from an earlier, interrupted run.
        engine: the engine of a stored reference; empty otherwise.
    """

    protocol: Protocol
    samples: Mapping[str, Sample]
    total: int
    limit: int | None = None
    resumed: int = 0
    engine: str = ""

    @property
    def score(self) -> float:
        """The mean score of the samples."""
        return math.fsum(sample.score for sample in self.samples.values()) / len(self.samples)

    @property
    def is_complete(self) -> bool:
        """True if the whole data set was evaluated."""
        return self.limit is None and len(self.samples) == self.total

    @property
    def extent(self) -> str:
        """A description of the evaluated part of the data set: "all 900 samples"."""
        if self.is_complete:
            return f"all {self.total} samples"
        return f"A SUBSET, {len(self.samples)} of {self.total} samples"
