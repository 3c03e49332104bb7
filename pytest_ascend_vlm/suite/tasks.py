"""tasks.*: the five kinds of question that the field's documents ask, and grounding.

Each is judged where the reference knows the answer: what it does not know cannot be asked of the
served model, and is not applicable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria import tasks as rules
from ..criteria.criterion import Cases
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
    """Criteria of what is understood; each docstring is the criterion's documentation."""

    @criterion("tasks.scene_text", needs=_VQA, cases=Cases.SCENE_TEXT)
    def test_scene_text_is_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """Text on a sign somewhere in the picture is named, where the reference names it.

        If this fails: see whether baseline.image holds on the same case. If it does not, compare
        the image's preprocessing; if it does, the reference reads as badly.
        """
        judge(_answered(case, comparison))

    @criterion("tasks.document", needs=_VQA, cases=Cases.DOCUMENT_QUESTION)
    def test_document_question_is_answered(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """A question about one part of a page gets that part, where the reference finds it.

        If this fails: if document.* holds, the page is read but the question is not followed:
        compare the chat templates of both sides.
        """
        judge(_answered(case, comparison))

    @criterion("tasks.chart", needs=_VQA, cases=Cases.CHART)
    def test_chart_is_understood(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The longest bar of a bar chart is named, where the reference names it.

        If this fails: labels are read but lengths are not compared where the positions of image
        tokens (mRoPE, tile order) are wrong.
        """
        judge(_answered(case, comparison))

    @criterion("tasks.reasoning", needs=_VQA, cases=Cases.REASONING)
    def test_things_are_counted(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """Scattered squares are counted, where the reference counts them.

        Counting needs every part of the picture at once: tokens that are dropped or seen twice
        change the number.

        If this fails: compare the number of image tokens of both sides, then the attention mask of
        the vision tower.
        """
        judge(_answered(case, comparison))

    @criterion("tasks.chinese", needs=_VQA, cases=Cases.CHINESE)
    def test_chinese_question_is_answered(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """A Chinese question about a picture is answered, where the reference answers it.

        If this fails: compare with tasks.reasoning, which asks the same in English. Only this one
        failing points at the tokenizer or at text that is not UTF-8 on its way.
        """
        judge(_answered(case, comparison))

    @criterion("tasks.grounding", needs=Capability.GROUNDING, cases=Cases.GROUNDING)
    def test_boxes_are_found(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The box of what was asked for overlaps the true one, by intersection over union.

        Boxes are where wrong image positions show first: a shifted mRoPE section still reads text,
        but points beside it.

        If this fails: a constant factor between the boxes means other units
        (ModelSpec.box_scale) or another resize on one side; a swap of x and y wrong positions.
        """
        from PIL import Image

        truth, threshold = case.box, self.model.thresholds.box_iou
        if truth is None:
            raise ConfigurationError(f"the case {case.id} has no box in fixtures/cases.json.")
        with Image.open(case.images[0]) as image:
            size = image.size

        def box(answer: str) -> rules.Box | None:
            return rules.read_box(answer, size, self.model.box_scale)

        comparison.require_known(
            case, lambda golden: rules.no_box_reason(truth, box(golden), threshold)
        )
        served, reference = comparison(case)
        judge(rules.judge_box(truth, box(served.text), box(reference.text), threshold))


def _answered(case: Case, comparison: Comparison) -> Verdict:
    if not case.accepted:
        raise ConfigurationError(f"the case {case.id} accepts no answer in fixtures/cases.json.")
    comparison.require_known(case, lambda golden: rules.unnamed_reason(case.accepted, golden))
    served, reference = comparison(case)
    return rules.judge_question(case.accepted, served.text, reference.text)
