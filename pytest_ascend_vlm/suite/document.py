"""document.*: how well is a page read?

Each is judged where the reference reads the page: what it does not know cannot be asked of the
served model, and is not applicable.
"""

from __future__ import annotations

from ..criteria import document as rules
from ..criteria.baseline import parts_at_near_tie
from ..criteria.criterion import Cases
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
    """Criteria against the ground truth; each docstring is the criterion's documentation."""

    @criterion("document.characters", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_characters_are_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The character error rate against the page's truth is no worse than the golden's.

        If this fails: compare the line in the message with the page. Single wrong symbols point at
        image resolution or numeric accuracy, missing blocks at the vision tower's positions.
        """
        tolerance = self.model.thresholds.document_cer
        judge(_against_truth(rules.judge_characters, case, comparison, tolerance))

    @criterion("document.lines", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_lines_are_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """As many lines of the page are read exactly as in the golden.

        If this fails: see document.characters; lines missing as a whole point at max_tokens or at
        an early end of the answer.
        """
        tolerance = self.model.thresholds.document_lines
        judge(_against_truth(rules.judge_lines, case, comparison, tolerance))

    @criterion("document.numbers", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_numbers_are_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """Every number of the page that the golden has is read exactly.

        A wrong digit is the error that nobody notices: language cannot correct it.

        If this fails: see document.characters.
        """
        tolerance = self.model.thresholds.document_numbers
        judge(_against_truth(rules.judge_numbers, case, comparison, tolerance))

    @criterion("document.order", needs=_NEEDS, cases=Cases.DOCUMENT)
    def test_order_is_kept(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The lines come in the page's order, as in the golden.

        If this fails: see document.characters. If they are read, the two-dimensional positions
        (mRoPE sections) of the image tokens are wrong.
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
    if parts_at_near_tie(served, reference):
        tolerance = max(tolerance, TOLERANCE_AFTER_TIE)
    return rule(truth, served.text, reference.text, tolerance)
