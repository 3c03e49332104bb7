"""reference.*: the golden itself, recorded and replayed by Transformers on CPU."""

from __future__ import annotations

from typing import ClassVar

from ..criteria import baseline as rules
from ..criteria.recorded import doubts
from ..session.judge import Goldens, Judge, Reference
from ..spec.model import Case, ModelSpec
from .criterion import Criterion, criterion


class ReferenceCriteria:
    """Run with `-m cpu_baseline`; with `--vlm-record` the goldens are written instead."""

    model: ClassVar[ModelSpec]

    @criterion(Criterion("reference.replay", cases="all"))
    def test_reference_holds(
        self, case: Case, reference: Reference, golden: Goldens, judge: Judge
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
        judge(rules.reference_holds(reference.answer(case), golden(case)))
