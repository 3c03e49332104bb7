"""dataset.<task>: is the model as good as its reference on the data sets the field trusts?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria import dataset as rules
from ..criteria.criterion import DATASET
from ..session.datasets import Datasets
from ..session.judge import Judge
from ..spec.case import Capability
from ..spec.dataset import DatasetTask, PublishedScore
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    pass


class DatasetCriteria(Criteria):
    """Criteria of scores on data sets; each docstring is the criterion's documentation."""

    @criterion(DATASET, needs=Capability.IMAGE)
    def test_dataset_score_holds(self, task: DatasetTask, datasets: Datasets, judge: Judge) -> None:
        """The score of a harness is non-inferior to the reference's.

        Where the reference's samples are stored, sample by sample: with 95 % confidence the score
        is less than the margin (0.02) lower. Against a published score alone it is not
        significantly worse, and the verdict says which difference cannot be seen. Doing better is
        no failure; samples that show neither are an error that says how many it would take.

        If this fails: read the samples that were lost (evidence.flips in the report): cut answers
        mean a token limit, garbage in one category its pictures' sizes, a drop everywhere the
        numerics: look at numerics.logits first.
        """
        if datasets.records:
            judge.recorded(datasets.record(task))
            return
        reference = datasets.reference(task)
        found = datasets.evaluate(task)
        judge(
            rules.judge_published(reference, found)
            if isinstance(reference, PublishedScore)
            else rules.judge_paired(reference, found, task.tolerance)
        )
