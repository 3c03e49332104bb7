"""document.*: how well is a page read?"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ..criteria import document as rules
from ..criteria.baseline import parts_at_near_tie
from ..criteria.verdict import Verdict
from ..errors import ConfigurationError
from ..spec import Capability, Case, ModelSpec
from .criterion import Criterion, criterion
from .session import Answers, Goldens, Judge

_NEEDS = Capability.DOCUMENT


class DocumentCriteria:
    """Criteria against the ground truth; each docstring is the criterion's documentation."""

    model: ClassVar[ModelSpec]

    @criterion(Criterion("document.characters", needs=_NEEDS, cases="document"))
    def test_characters_are_read(
        self, case: Case, answers: Answers, golden: Goldens, judge: Judge
    ) -> None:
        """The character error rate against the page's truth is no worse than the golden's.

        If this fails: compare the line in the message with the page. Single wrong symbols point at
        image resolution or numeric accuracy, missing blocks at the vision tower's positions.
        """
        slack = self.model.thresholds.document_cer
        judge(_against_truth(rules.characters_are_read, case, answers, golden, slack))

    @criterion(Criterion("document.lines", needs=_NEEDS, cases="document"))
    def test_lines_are_read(
        self, case: Case, answers: Answers, golden: Goldens, judge: Judge
    ) -> None:
        """As many lines of the page are read exactly as in the golden.

        If this fails: see document.characters; lines missing as a whole point at max_tokens or at
        an early end of the answer.
        """
        slack = self.model.thresholds.document_lines
        judge(_against_truth(rules.lines_are_read, case, answers, golden, slack))

    @criterion(Criterion("document.numbers", needs=_NEEDS, cases="document"))
    def test_numbers_are_read(
        self, case: Case, answers: Answers, golden: Goldens, judge: Judge
    ) -> None:
        """Every number of the page that the golden has is read exactly.

        A wrong digit is the error that nobody notices: language cannot correct it.

        If this fails: see document.characters.
        """
        slack = self.model.thresholds.document_numbers
        judge(_against_truth(rules.numbers_are_read, case, answers, golden, slack))

    @criterion(Criterion("document.order", needs=_NEEDS, cases="document"))
    def test_order_is_kept(
        self, case: Case, answers: Answers, golden: Goldens, judge: Judge
    ) -> None:
        """The lines come in the page's order, as in the golden.

        If this fails: see document.characters. If they are read, the two-dimensional positions
        (mRoPE sections) of the image tokens are wrong.
        """
        slack = self.model.thresholds.document_order
        judge(_against_truth(rules.order_is_kept, case, answers, golden, slack))


def _against_truth(
    rule: Callable[[str, str, str, float], Verdict],
    case: Case,
    answers: Answers,
    golden: Goldens,
    slack: float,
) -> Verdict:
    if case.truth is None:
        raise ConfigurationError(f"the case {case.id} has no ground truth in fixtures/cases.json.")
    served, reference = answers(case), golden(case)
    if parts_at_near_tie(served, reference):
        slack = max(slack, rules.SLACK_AFTER_TIE)
    return rule(case.truth, served.text, reference.text, slack)
