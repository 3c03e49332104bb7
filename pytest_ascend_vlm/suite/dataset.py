"""Criteria dataset.<task>: scores of public data sets are as good as the reference's."""

from __future__ import annotations

from ..criteria import dataset as rules
from ..criteria.criterion import DATASET
from ..session.datasets import Datasets
from ..session.judge import Judge
from ..spec.case import Capability
from ..spec.dataset import DatasetTask, PublishedScore
from .base import Criteria
from .criterion import criterion


class DatasetCriteria(Criteria):
    """Criterion of the scores that an evaluation harness computes on data sets."""

    @criterion(DATASET, needs=Capability.IMAGE)
    def test_dataset_score_holds(self, task: DatasetTask, datasets: Datasets, judge: Judge) -> None:
        """The score of an evaluation harness is non-inferior to the reference's score.

        If the reference's samples are stored, the scores are compared sample by sample: at 95 %
        confidence the score is less than the margin ({score_tolerance}) lower. If only a published
        score is known, the score is not significantly worse, and the verdict states the largest
        drop that cannot be detected. A better score passes. If the samples can decide neither way,
        the result is an error that says how many samples are needed.

        If this fails: read the lost samples (evidence.flips in the report). Cut answers point at a
        token limit. Degenerate answers in one category point at the sizes of its images. A drop in
        all categories points at the numerics: look at numerics.logits first.
        """
        if datasets.records:
            judge.recorded(datasets.record(task))
            return
        reference = datasets.reference(task)
        evaluation = datasets.evaluate(task)
        judge(
            rules.judge_published(reference, evaluation)
            if isinstance(reference, PublishedScore)
            else rules.judge_paired(reference, evaluation, task.tolerance)
        )
