"""equivalence.*, serving.offline: does the model behave the same however it is served?"""

from __future__ import annotations

import pytest

from ..criteria import equivalence as rules
from ..criteria.criterion import VARIANT
from ..session.answers import Answers
from ..session.judge import Judge
from ..session.numerics import NumericsSession
from ..spec.model import Variant
from .base import Criteria
from .criterion import criterion


class EquivalenceCriteria(Criteria):
    """Criteria of other ways to serve; each docstring is the criterion's documentation."""

    @criterion("serving.offline", ends_server=True, offline="chat")
    def test_offline_answers_agree(
        self, answers: Answers, numerics: NumericsSession, judge: Judge
    ) -> None:
        """`LLM.chat` gives the server's answers; where they part, the choice was a near-tie.

        Evaluations are often run offline and deployed online: a difference makes their scores those
        of another system.

        If this fails: compare the two's chat templates, generation_config and image limits; the
        engine underneath is the same.
        """
        if not numerics.slot.starts_engines:
            judge.cannot_run("needs engines of our own, and the endpoint is someone else's")
        online = {case.id: answers(case) for case in numerics.cases}
        judge(rules.judge_answers(online, numerics.offline_answers(), numerics.references))

    @criterion(VARIANT, ends_server=True)
    @pytest.mark.parametrize("rule", ["answers", "error_ratio"])
    def test_variant_agrees(
        self, variant: Variant, rule: str, answers: Answers, numerics: NumericsSession, judge: Judge
    ) -> None:
        """Served another way, as ModelSpec.variants declares it, the model behaves the same.

        Eager or captured graphs, one card or two, with or without prefix cache or chunked prefill:
        the answers are equal or part at a near-tie (answers), and the forced logits are as close to
        fp32 as numerics.logits asks (error_ratio). Where a variant rounds on purpose (is_lossy:
        W8A8) the ratio is shown and not judged, and the answers have to be alike.

        If this fails: the message says where the answers part and how sure the model was. Graphs:
        look at what is captured with stale inputs. Two cards: at the reduction's data type and at
        weights that are split unevenly. Caches and chunks: at attention masks of partly computed
        prompts.
        """
        base = {case.id: answers(case) for case in numerics.cases}
        seen, bars = numerics.variant(variant), self.model.thresholds
        if rule == "error_ratio":
            measures = numerics.logits(lambda case: seen.forced[case.id])
            judge(rules.error_ratio(measures, bars, is_lossy=variant.is_lossy))
        elif variant.is_lossy:
            judge(rules.judge_similarity(base, seen.answers, bars.similarity_after_tie))
        else:
            judge(rules.judge_answers(base, seen.answers, numerics.references))
