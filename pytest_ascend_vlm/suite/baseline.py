"""Criteria baseline.*: the served model gives the reference's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria import baseline as rules
from ..criteria.criterion import Cases
from ..session.answers import ForcedAnswers
from ..session.comparison import Comparison
from ..session.judge import Judge
from ..spec.case import Capability, Case
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..observation.answers import Reference
    from ..observation.numerics import ReferenceNumerics


class BaselineCriteria(Criteria):
    """Criteria of answers and log-probabilities against the golden."""

    @criterion("baseline.text", cases=Cases.TEXT)
    def test_text_matches_reference(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The answer to a text prompt equals the reference's answer.

        If the answers diverge at a near-tie of the reference, a character similarity of
        {similarity_after_tie} is enough. No image is involved, so this criterion isolates the
        language model.

        If this fails: read the reference's candidates at the first differing token. If it clearly
        preferred its own token, a kernel is wrong: try enforce_eager, then dtype float32, and
        compare. If whole answers differ in style, compare chat template and generation settings.
        """
        served, reference = comparison(case)
        judge(rules.judge_text(served, reference, self.model.thresholds))

    @criterion("baseline.image", needs=Capability.IMAGE, cases=Cases.IMAGE)
    def test_image_matches_reference(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """The answer to an image prompt equals the reference's answer.

        If the answers diverge at a near-tie of the reference, a character similarity of
        {similarity_after_tie} is enough.

        If this fails: check baseline.text. If it passes, the vision tower, its positions (mRoPE) or
        the image preprocessing differ: compare min_pixels, max_pixels and mean/std on both sides,
        then the attention backend of the vision tower.
        """
        served, reference = comparison(case)
        judge(rules.judge_text(served, reference, self.model.thresholds))

    @criterion("baseline.divergence", cases=Cases.ALL)
    def test_divergence_is_rounding(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """At the first differing token, the reference itself was within rounding of a tie.

        bf16 rounding may change the choice at a near-tie on any hardware. Only a defect changes a
        choice that the reference clearly preferred.

        If this fails: the message has both sides' candidates at that token. If the served token
        has almost no probability in the reference, the inputs are wrong. If two close candidates
        have shifted probabilities, suspect the accuracy of a kernel.
        """
        served, reference = comparison(case)
        _require_numerics(reference, judge)
        judge(rules.judge_divergence(served, reference))

    @criterion("baseline.logprobs", cases=Cases.ALL)
    def test_logprobs_match_reference(
        self, case: Case, comparison: Comparison, forced: ForcedAnswers, judge: Judge
    ) -> None:
        """With the reference's answer forced, log-probabilities equal the reference's.

        Compared are the reference's 20 most likely tokens at each position. The mean difference
        is at most {logprobs_ratio} times the difference between bf16 and fp32 in the reference
        itself. Texts hide most numeric defects: 5 % noise on every weight can leave every text
        unchanged.

        If this fails: the numbers differ by more than rounding, even if the texts agree. Look at
        the positions of the differences. Large from the first token on: suspect the weights
        (quantisation, a wrong file). Growing along the answer: suspect positions or the KV cache.
        Only with images: suspect the vision tower.
        """
        _, reference = comparison(case)
        numerics = _require_numerics(reference, judge)
        judge(rules.judge_logprobs(forced(case), numerics, self.model.thresholds))


def _require_numerics(reference: Reference, judge: Judge) -> ReferenceNumerics:
    if reference.numerics is None:
        judge.not_applicable(f"the reference has a text but no numerics ({reference.source})")
    return reference.numerics
