"""reference.*: the golden itself, recorded and replayed by Transformers on CPU."""

from __future__ import annotations

from ..criteria import baseline as rules
from ..criteria.criterion import Cases
from ..criteria.recorded import doubts
from ..session.goldens import Goldens
from ..session.judge import Judge
from ..session.reference import ReferenceSession
from ..spec.case import Case
from .base import Criteria
from .criterion import criterion


class ReferenceCriteria(Criteria):
    """Run with `-m cpu_baseline`; with `--vlm-record` the goldens are written instead."""

    @criterion("reference.replay", cases=Cases.ALL)
    def test_reference_holds(
        self, case: Case, reference: ReferenceSession, golden: Goldens, judge: Judge
    ) -> None:
        """The reference engine still gives the recorded answer, up to a near-tie.

        A golden that its own engine no longer reproduces judges nothing: Transformers, the chat
        template or the preprocessor has changed since.

        If this fails: record again with `pytest conformance -m cpu_baseline --vlm-record`, read the
        difference, and commit it only if the new answer is the right one.
        """
        if reference.recording:
            path = reference.record(case)
            judge.recorded(path, doubts(reference.recorded(case), case.max_tokens))
            return
        judge(rules.judge_replay(reference.answer(case), golden(case)))
