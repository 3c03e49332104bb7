"""tasks.*: the five kinds of question that the field's documents ask, and grounding.

Each is judged where the reference knows the answer: what it does not know cannot be asked of the
served model, and is not applicable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..criteria import tasks as rules
from ..errors import ConfigurationError
from ..session.comparison import Comparison
from ..session.judge import Judge
from ..spec.model import Capability, Case, ModelSpec
from .criterion import Criterion, criterion

if TYPE_CHECKING:
    from ..criteria.verdict import Verdict

_VQA = Capability.VQA


class TaskCriteria:
    """Criteria of what is understood; each docstring is the criterion's documentation."""

    model: ClassVar[ModelSpec]

    @criterion(Criterion("tasks.scene_text", needs=_VQA, cases="scene_text"))
    def test_scene_text_is_read(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """Text on a sign somewhere in the picture is named, where the reference names it.

        If this fails: see whether baseline.image holds on the same case. If it does not, compare
        the image's preprocessing; if it does, the reference reads as badly.
        """
        judge(_answered(case, comparison))

    @criterion(Criterion("tasks.document", needs=_VQA, cases="document_question"))
    def test_document_question_is_answered(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """A question about one part of a page gets that part, where the reference finds it.

        If this fails: if document.* holds, the page is read but the question is not followed:
        compare the chat templates of both sides.
        """
        judge(_answered(case, comparison))

    @criterion(Criterion("tasks.chart", needs=_VQA, cases="chart"))
    def test_chart_is_understood(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The longest bar of a bar chart is named, where the reference names it.

        If this fails: labels are read but lengths are not compared where the positions of image
        tokens (mRoPE, tile order) are wrong.
        """
        judge(_answered(case, comparison))

    @criterion(Criterion("tasks.reasoning", needs=_VQA, cases="reasoning"))
    def test_things_are_counted(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """Scattered squares are counted, where the reference counts them.

        Counting needs every part of the picture at once: tokens that are dropped or seen twice
        change the number.

        If this fails: compare the number of image tokens of both sides, then the attention mask of
        the vision tower.
        """
        judge(_answered(case, comparison))

    @criterion(Criterion("tasks.chinese", needs=_VQA, cases="chinese"))
    def test_chinese_question_is_answered(
        self, case: Case, comparison: Comparison, judge: Judge
    ) -> None:
        """A Chinese question about a picture is answered, where the reference answers it.

        If this fails: compare with tasks.reasoning, which asks the same in English. Only this one
        failing points at the tokenizer or at text that is not UTF-8 on its way.
        """
        judge(_answered(case, comparison))

    @criterion(Criterion("tasks.grounding", needs=Capability.GROUNDING, cases="grounding"))
    def test_boxes_are_found(self, case: Case, comparison: Comparison, judge: Judge) -> None:
        """The box of what was asked for overlaps the true one, by intersection over union.

        Boxes are where wrong image positions show first: a shifted mRoPE section still reads text,
        but points beside it.

        If this fails: a constant factor between the boxes means other units
        (ModelSpec.box_range) or another resize on one side; a swap of x and y wrong positions.
        """
        from PIL import Image

        truth, bar = case.box, self.model.thresholds.box_iou
        if truth is None:
            raise ConfigurationError(f"the case {case.id} has no box in fixtures/cases.json.")
        with Image.open(case.images[0]) as image:
            size = image.size

        def box(answer: str) -> rules.Box | None:
            return rules.read_box(answer, size, self.model.box_range)

        comparison.require_known(case, lambda golden: rules.no_box(truth, box(golden), bar))
        served, reference = comparison(case)
        judge(rules.box_is_found(truth, box(served.text), box(reference.text), bar))


def _answered(case: Case, comparison: Comparison) -> Verdict:
    if not case.accepted:
        raise ConfigurationError(f"the case {case.id} accepts no answer in fixtures/cases.json.")
    comparison.require_known(case, lambda golden: rules.unnamed(case.accepted, golden))
    served, reference = comparison(case)
    return rules.question_is_answered(case.accepted, served.text, reference.text)
