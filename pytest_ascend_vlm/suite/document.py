"""Criteria document.*: the served model reads a page as well as the reference.

Each is not applicable to a page that the reference itself does not read.
"""

from __future__ import annotations

from ..criteria import document as rules
from ..criteria.baseline import diverges_at_near_tie
from ..criteria.criterion import Cases
from ..criteria.evidence import with_answer
from ..criteria.verdict import Verdict
from ..errors import ConfigurationError
from ..session.comparison import Comparison
from ..session.judge import Judge
from ..spec.case import Capability, Case
from ..spec.thresholds import TOLERANCE_AFTER_TIE
from .base import Criteria
from .criterion import criterion

_NEEDS = Capability.DOCUMENT


class DocumentCriteria(Criteria):
    """Criteria of a page's text against its ground truth."""

    @criterion("document.characters", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_characters_are_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The character error rate (CER) against the ground truth is as low as the golden's.

        It may be at most {document_cer} higher, or {tolerance_after_tie} after a near-tie of the
        reference. A page is not applicable if the golden's own CER is above {read_cer}.

        If this fails: compare the line in the message with the page. Single wrong symbols point at
        image resolution or numeric accuracy. Missing blocks point at the vision tower's positions.
        """
        tolerance = self.model.thresholds.document_cer
        judge(_against_truth(rules.judge_characters, case, comparison, tolerance))

    @criterion("document.lines", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_lines_are_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The rate of lines that are read exactly is as high as the golden's.

        It may be at most {document_lines} lower, or {tolerance_after_tie} after a near-tie of the
        reference.

        If this fails: see document.characters. If whole lines are missing, check max_tokens and
        whether the answer ends too early.
        """
        tolerance = self.model.thresholds.document_lines
        judge(_against_truth(rules.judge_lines, case, comparison, tolerance))

    @criterion("document.numbers", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_numbers_are_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The rate of numbers that are read exactly is as high as the golden's.

        It may be at most {document_numbers} lower, or {tolerance_after_tie} after a near-tie of the
        reference. A reader rarely notices a wrong digit, because the context does not reveal it.

        If this fails: see document.characters.
        """
        tolerance = self.model.thresholds.document_numbers
        judge(_against_truth(rules.judge_numbers, case, comparison, tolerance))

    @criterion("document.order", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_order_is_kept(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The lines are in the page's order, as in the golden.

        The rate of line pairs in order may be at most {document_order} lower than the golden's, or
        {tolerance_after_tie} after a near-tie of the reference.

        If this fails: see document.characters. If the lines are read correctly, the two-dimensional
        positions (mRoPE sections) of the image tokens are wrong.
        """
        tolerance = self.model.thresholds.document_order
        judge(_against_truth(rules.judge_order, case, comparison, tolerance))


def _against_truth(
    rule: rules.Rule, case: Case, comparison: Comparison, tolerance: float
) -> Verdict:
    truth = case.truth
    if truth is None:
        raise ConfigurationError(f"the case {case.id} has no ground truth in fixtures/cases.json.")
    comparison.require_known(
        case, lambda golden: rules.unread_reason(rule, truth, golden, tolerance)
    )
    served, reference = comparison(case)
    if diverges_at_near_tie(served, reference):
        tolerance = max(tolerance, TOLERANCE_AFTER_TIE)
    return with_answer(rule(truth, served.text, reference.text, tolerance), served)
