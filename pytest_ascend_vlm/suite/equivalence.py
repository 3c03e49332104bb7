"""Criteria equivalence.* and serving.offline: variants of serving give the same results."""

from __future__ import annotations

import dataclasses

import pytest

from ..criteria import equivalence as rules
from ..criteria.criterion import VARIANT
from ..criteria.serving_mode import require_mode
from ..session.answers import Answers
from ..session.judge import Judge
from ..session.numerics import NumericsSession
from ..spec.model import Variant
from .base import Criteria
from .criterion import criterion
from .numerics import require_engines


class EquivalenceCriteria(Criteria):
    """Criteria of variants of the serve command, and of offline inference."""

    @criterion("serving.offline", ends_server=True, offline="chat")
    def test_offline_answers_agree(
        self, answers: Answers, numerics: NumericsSession, judge: Judge
    ) -> None:
        """`LLM.chat` gives the server's answers, or diverges from them only at near-ties.

        Models are often evaluated offline and deployed online. If the answers differ, the scores do
        not apply to the deployed model.

        If this fails: compare chat template, generation_config and image limits of both. The engine
        itself is the same.
        """
        require_engines(numerics, judge)
        online = {case.id: answers(case) for case in numerics.cases}
        judge(rules.judge_answers(online, numerics.offline_answers(), numerics.references))

    @criterion(VARIANT, ends_server=True)
    @pytest.mark.parametrize("rule", ["answers", "error_ratio"])
    def test_variant_agrees(
        self, variant: Variant, rule: str, answers: Answers, numerics: NumericsSession, judge: Judge
    ) -> None:
        """A variant from ModelSpec.variants gives the same answers and logits as the base model.

        A variant serves the model in eager or graph mode, on one card or two, with or without
        prefix cache or chunked prefill. Rule `answers`: the answers are equal or diverge at a
        near-tie. Rule `error_ratio`: R of the forced logits is at most {error_ratio}, as in
        numerics.logits. For a lossy variant (is_lossy, such as W8A8) R is reported but not judged,
        and the mean similarity of the answers is at least {similarity_after_tie}.

        A variant that is not served as declared is an error: graphs that were not captured, a
        prefix cache without a hit, a step that cuts no prompt. The evidence "served" has what the
        engine's log, the answers and `/metrics` tell, or that this release does not tell it.

        If this fails: the message has the first differing token and the model's preference for it.
        Graph mode: look for inputs that are captured once and never updated. Two cards: look at the
        data type of the reduction and at unevenly split weights. Prefix cache and chunked prefill:
        look at attention masks of partly computed prompts.
        """
        base = {case.id: answers(case) for case in numerics.cases}
        results, thresholds = numerics.variant(variant), self.model.thresholds
        arguments, got = numerics.variant_arguments(variant), results.answers
        mode = require_mode(arguments, results.mode, got.values(), results.draft_tokens)
        if rule == "error_ratio":
            statistics = numerics.logits(lambda case: results.forced[case.id])
            verdict = rules.judge_error_ratio(statistics, thresholds, is_lossy=variant.is_lossy)
        elif variant.is_lossy:
            verdict = rules.judge_similarity(base, got, thresholds.similarity_after_tie)
        else:
            verdict = rules.judge_answers(base, got, numerics.references)
        judge(dataclasses.replace(verdict, evidence={**verdict.evidence, "served": mode}))
