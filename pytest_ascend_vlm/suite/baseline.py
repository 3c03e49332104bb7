"""Criteria baseline.*: the served model gives the reference's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria import baseline as rules
from ..criteria.criterion import Cases
from ..criteria.look_alikes import Seen, judge_seen, other_clips, reversed_images
from ..session.answers import Answers, ForcedAnswers
from ..session.comparison import Comparison
from ..session.goldens import Goldens
from ..session.judge import Judge
from ..spec.case import Capability, Case
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..observation.answers import Reference
    from ..observation.numerics import ReferenceNumerics


class BaselineCriteria(Criteria):
    """Criteria of answers and log-probabilities against the golden."""

    @criterion("baseline.prompt", cases=Cases.ALL, untaught=True)
    def test_prompt_matches_reference(
        self, case: Case, answers: Answers, golden: Goldens, judge: Judge
    ) -> None:
        """The prompt's token ids equal the ids that the reference's processor makes.

        They are the ids of the chat template, of the text, of every image and of every frame of a
        clip; some models write the time of a frame into the prompt. Prompts of equal length can
        differ: another template, or two images whose places are exchanged. If the prompts differ,
        the answers are not compared.

        If this fails: the message has the first differing ids. Another number of image tokens:
        compare min_pixels, max_pixels and the resizing of both sides. Other text tokens: compare
        the chat templates, the system prompt, and the tokenizer's files. Only clips: compare the
        number of frames and their times; Transformers from 5.10 on puts one more pair of
        <|vision_start|> and <|vision_end|> around a clip of Qwen3-VL, so record the goldens with
        the version that serves.
        """
        reference = golden(case)
        if reference.prompt_token_ids is None:
            judge.not_applicable(f"the reference's prompt is not known ({reference.source})")
        judge(rules.judge_prompt(answers.prompt(case), reference, case.text))

    @criterion("baseline.order", needs=Capability.IMAGE)
    def test_images_keep_their_order(
        self,
        any_image_cases: tuple[Case, ...],
        forced: ForcedAnswers,
        golden: Goldens,
        judge: Judge,
    ) -> None:
        """Several images of one request are seen in their order.

        The logits of a request with the images (A, B) are those of the reference for (A, B), not
        for (B, A). No right answer is needed. R is at most {image_error_ratio}.

        If this fails: the message says whether the numbers are those of the other order. If they
        are, look at how embeddings are assigned to their places. If they are not, look at
        numerics.images of one image: if it passes, look at the positions (mRoPE) of the second
        image, and at attention across images.
        """
        seen = [
            Seen(forced(case), golden.numerics(case), {one.id: golden.numerics(one) for one in of})
            for case in any_image_cases
            if (of := reversed_images(case, any_image_cases))
        ]
        if not seen:
            judge.not_applicable("the model is declared for one image in a request")
        judge(judge_seen(seen, "the images of a request are exchanged"))

    @criterion("baseline.frames", needs=Capability.VIDEO)
    def test_frames_keep_order_and_time(
        self,
        clip_cases: tuple[Case, ...],
        forced: ForcedAnswers,
        golden: Goldens,
        judge: Judge,
    ) -> None:
        """The frames of a clip are seen in their order and at their times.

        The logits of a clip are those of the reference for this clip. They are not those for the
        same frames in reversed order, or at another frame rate. No right answer is needed. R is at
        most {image_error_ratio}. Frame rates are compared only if the prompts have one length and
        the reference itself sees the difference.

        If this fails: the message says whether the numbers are those of another clip. If they are,
        look at how frames are decoded and sorted, and at the time between frames: the model gets it
        as positions (mRoPE) or as text. If they are not, see numerics.clips.
        """
        numerics = {case.id: golden.numerics(case) for case in clip_cases}
        seen = [
            Seen(forced(case), numerics[case.id], {one.id: numerics[one.id] for one in of})
            for case in clip_cases
            if (of := other_clips(case, clip_cases, numerics))
        ]
        if not seen:
            judge.not_applicable("there are no two clips of one question in fixtures/cases.json")
        judge(judge_seen(seen, "the frames are in another order, or at other times"))

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
        verdict = rules.judge_text(served, reference, self.model.thresholds)
        judge(rules.with_parting(verdict, served, reference, comparison.token_text))

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
        verdict = rules.judge_text(served, reference, self.model.thresholds)
        judge(rules.with_parting(verdict, served, reference, comparison.token_text))

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
        require_numerics(reference, judge)
        verdict = rules.judge_divergence(served, reference)
        judge(rules.with_parting(verdict, served, reference, comparison.token_text))

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
        numerics = require_numerics(reference, judge)
        judge(rules.judge_logprobs(forced(case), numerics, self.model.thresholds))


def require_numerics(reference: Reference, judge: Judge) -> ReferenceNumerics:
    """The reference's numerics; not applicable if it has a text only."""
    if reference.numerics is None:
        judge.not_applicable(f"the reference has a text but no numerics ({reference.source})")
    return reference.numerics
