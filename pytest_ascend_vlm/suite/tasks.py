"""Criteria tasks.*: kinds of visual question, and grounding.

Each is not applicable to a question that the reference itself does not answer correctly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria import tasks as rules
from ..criteria.criterion import Cases
from ..criteria.evidence import with_answer
from ..errors import ConfigurationError
from ..session.comparison import Comparison
from ..session.judge import Judge
from ..spec.case import Capability, Case
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..criteria.verdict import Verdict

_VQA = Capability.VQA


class TaskCriteria(Criteria):
    """Criteria of questions about images, and of boxes."""

    @criterion("tasks.scene_text", needs=_VQA, cases=Cases.SCENE_TEXT)
    def test_scene_text_is_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """If the reference's answer names the text on a sign in the image, the served one does too.

        If this fails: check baseline.image on the same case. If it fails too, compare the image
        preprocessing of both sides. If it passes, the answers diverged at a near-tie: read both.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.document", needs=_VQA, cases=Cases.DOCUMENT_QUESTION)
    def test_document_question_is_answered(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """If the reference answers a question about one part of a page, the served model does too.

        If this fails: if document.* passes, the model reads the page but does not follow the
        question: compare the chat templates of both sides.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.chart", needs=_VQA, cases=Cases.CHART)
    def test_chart_is_understood(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """If the reference's answer names the longest bar of a bar chart, the served one does too.

        If this fails: with wrong positions of image tokens (mRoPE, tile order) a model still reads
        the labels but cannot compare the lengths.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.reasoning", needs=_VQA, cases=Cases.REASONING)
    def test_things_are_counted(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """If the reference counts scattered squares correctly, the served model does too.

        Counting needs every part of the image at once: dropped or duplicated image tokens change
        the number.

        If this fails: compare the number of image tokens of both sides, then the attention mask of
        the vision tower.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.chinese", needs=_VQA, cases=Cases.CHINESE)
    def test_chinese_question_is_answered(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """If the reference answers a Chinese question about an image, the served model does too.

        If this fails: compare with tasks.reasoning, which has the same question in English. If only
        this criterion fails, suspect the tokenizer, or an encoding other than UTF-8 in a request.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.size", needs=Capability.IMAGE, cases=Cases.SIZE)
    def test_images_of_any_size_are_read(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """If the reference reads the text in a coloured image of any size, the served one does too.

        The images are smaller than a patch, thin, tall, of one window and of many windows. Users
        send such images, and limits of the vision tower show at their sizes.

        If this fails: see numerics.images and baseline.prompt of the same case.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.order", needs=Capability.IMAGE, cases=Cases.ORDER)
    def test_the_right_image_is_meant(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """If the reference answers a question about one of several images, the served one does too.

        The images are in one message, between parts of its text, behind its text, or in an earlier
        turn of the conversation; one case has a system prompt.

        If this fails: see baseline.prompt and baseline.order. If both pass, compare numerics.images
        of one image and of several.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.clip", needs=Capability.VIDEO, cases=Cases.CLIP)
    def test_clips_are_understood(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """If the reference answers a question about numbered frames, the served model does too.

        Asked are the order of the numbers, how many there are, and when one of them is shown.

        If this fails: see baseline.prompt, numerics.clips and baseline.frames of the same case.
        """
        judge(_judge_question(case, comparison))

    @criterion("tasks.grounding", needs=Capability.GROUNDING, cases=Cases.GROUNDING)
    def test_boxes_are_found(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The answered box overlaps the true box: the intersection over union (IoU) is high enough.

        The IoU is at least {box_iou}, and at most {iou_tolerance} below the golden's. A case is not
        applicable if the golden's own IoU is below {box_iou}. Boxes reveal wrong image positions
        first: with a shifted mRoPE section a model still reads text, but its boxes are beside the
        text.

        If this fails: a constant factor between the boxes points at other units
        (ModelSpec.box_scale) or at another resize on one side. Swapped x and y point at wrong
        positions.
        """
        from PIL import Image

        truth, threshold = case.box, self.model.thresholds.box_iou
        if truth is None:
            raise ConfigurationError(
                f"the case {case.id} has no box. Add one to its entry in fixtures/cases.json."
            )
        with Image.open(case.images[0]) as image:
            size = image.size

        def box(answer: str) -> rules.Box | None:
            return rules.read_box(answer, size, self.model.box_scale)

        comparison.require_known(
            case, lambda golden: rules.no_box_reason(truth, box(golden), threshold)
        )
        served, reference = comparison(case)
        verdict = rules.judge_box(truth, box(served.text), box(reference.text), threshold)
        judge(with_answer(verdict, served))


def _judge_question(case: Case, comparison: Comparison) -> Verdict:
    if not case.accepted:
        raise ConfigurationError(
            f"the case {case.id} has no accepted answers. Add them to its entry in "
            "fixtures/cases.json."
        )
    comparison.require_known(case, lambda golden: rules.unnamed_reason(case.accepted, golden))
    served, reference = comparison(case)
    verdict = rules.judge_question(case.accepted, served.text, reference.text)
    return with_answer(verdict, served)
