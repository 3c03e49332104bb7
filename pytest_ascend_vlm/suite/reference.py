"""Criteria reference.*: Transformers on CPU records and reproduces the goldens."""

from __future__ import annotations

from ..criteria import baseline as rules
from ..criteria.criterion import Cases
from ..session.goldens import Goldens
from ..session.judge import Judge
from ..session.reference import ReferenceSession
from ..spec.case import Case
from .base import Criteria
from .criterion import criterion


class ReferenceCriteria(Criteria):
    """Criterion of the goldens; it runs with `-m cpu_baseline`, and `--vlm-record` records them."""

    @criterion("reference.replay", cases=Cases.ALL, untaught=True)
    def test_reference_holds(
        self, case: Case, reference: ReferenceSession, golden: Goldens, judge: Judge
    ) -> None:
        """The reference engine still gives the recorded answer, or diverges only at a near-tie.

        If the reference engine no longer reproduces a golden, the golden is not a valid reference.
        Transformers, the chat template or the preprocessor has changed since it was recorded.

        If this fails: record again with `pytest conformance -m cpu_baseline --vlm-record`. Read the
        difference, and commit the new golden only if its answer is right.
        """
        if reference.recording:
            path = reference.record(case)
            judge.recorded(path, reference.doubts(case))
            return
        judge(rules.judge_replay(reference.answer(case), golden(case)))
