"""baseline.*: does the served model answer as the reference does?"""

from __future__ import annotations

from ..criteria import baseline as rules
from ..criteria.criterion import Cases
from ..session.answers import ForcedAnswers
from ..session.comparison import Comparison
from ..session.judge import Judge
from ..spec.case import Capability, Case
from .base import Criteria
from .criterion import criterion


class BaselineCriteria(Criteria):
    """Criteria against the golden; each docstring is the criterion's documentation."""

    @criterion("baseline.text", cases=Cases.TEXT)
    def test_text_matches_reference(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The answer to a text equals the reference's; after a near-tie, most of it still does.

        This is the control that isolates the language model: no image is involved.

        If this fails: see what the reference's candidates were at the first differing token. If it
        was sure, a kernel is wrong: try enforce_eager, then dtype float32, and compare. If whole
        answers differ in style, compare chat template and generation settings.
        """
        served, reference = comparison(case)
        judge(rules.judge_text(served, reference, self.model.thresholds))

    @criterion("baseline.image", needs=Capability.IMAGE, cases=Cases.IMAGE)
    def test_image_matches_reference(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """The answer to an image equals the reference's; after a near-tie, most of it still does.

        If this fails: see whether baseline.text holds. If it does, the vision tower, its positions
        (mRoPE) or the image preprocessing differ: compare min_pixels, max_pixels and mean/std on
        both sides, then the attention backend of the vision tower.
        """
        served, reference = comparison(case)
        judge(rules.judge_text(served, reference, self.model.thresholds))

    @criterion("baseline.divergence", cases=Cases.ALL)
    def test_divergence_is_rounding(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """Where the answers part, the reference itself was within rounding of a tie.

        bf16 rounding may turn a near-tie on any hardware; a choice that the reference was sure of
        can only be turned by a defect.

        If this fails: the message has both sides' candidates at that token; a served candidate
        that the reference gives next to no probability points at wrong inputs, two close ones with
        shifted probabilities at a kernel's accuracy.
        """
        served, reference = comparison(case)
        if reference.numerics is None:
            judge.not_applicable(f"the reference is text only ({reference.source})")
        judge(rules.judge_divergence(served, reference))

    @criterion("baseline.logprobs", cases=Cases.ALL)
    def test_logprobs_match_reference(
        self, case: Case, comparison: Comparison, forced: ForcedAnswers, judge: Judge
    ) -> None:
        """With the reference's answer forced, its 20 likeliest tokens are as likely as there.

        Texts hide most numeric defects: 5 % noise on every weight can leave every text as it is.
        The bar is a multiple of the difference that bf16 makes in the reference itself.

        If this fails: even where the texts agree, the numbers are off by more than rounding. Look
        where the largest difference is: at once, and everywhere, points at weights (quantisation, a
        wrong file); growing along the answer at positions or the KV cache; with images only at the
        vision tower.
        """
        _, reference = comparison(case)
        if reference.numerics is None:
            judge.not_applicable(f"the reference is text only ({reference.source})")
        judge(rules.judge_logprobs(forced(case), reference.numerics, self.model.thresholds))
