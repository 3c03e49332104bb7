"""numerics.*: are the numbers those of the reference, up to rounding?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..criteria import numerics as rules
from ..session.judge import Judge
from ..session.memo import Memo
from ..session.numerics import NumericsSession
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..criteria.error_statistics import ErrorStatistics

_OPERATOR_RULES = (
    *(f"logits-{rule}" for rule in rules.LOGIT_RULES),
    *(f"hidden_states-{rule}" for rule in rules.HIDDEN_STATE_RULES),
)


class NumericsCriteria(Criteria):
    """Criteria of numbers; each docstring is the criterion's documentation."""

    @criterion("numerics.logits")
    @pytest.mark.parametrize("rule", rules.LOGIT_RULES)
    def test_logits_match_reference(
        self,
        rule: str,
        served_logits: Memo[ErrorStatistics],
        numerics: NumericsSession,
        judge: Judge,
    ) -> None:
        """The logits of forced answers, image prompts included, are fp32's up to bf16's rounding.

        The reference's answers are forced through the served engine, and its raw logits compared
        with float32 on CPU at the positions and tokens that the golden keeps. error_ratio (R) is
        the root mean square error in units of the reference's own bf16 error, kl_ratio (K)
        the same for the Kullback-Leibler divergence: honest bf16 engines are near 1, defects at 2
        and above. max_abs_error and cosine_similarity are the figures that adaptation documents
        show; relative_error is reported with them and not judged, because logits near zero make it
        large. top1_flips counts other most likely tokens where the reference was not near a tie.

        If this fails: the message says whether image or text positions are off, from where on, and
        whether Transformers on the same device is off too. If it is, an operator is wrong: bisect
        with numerics.transformers. If it is not, look at the engine: attention backend, graph mode,
        KV cache, fused kernels; numerics.fp32_probe tells rounding from defects where it runs.
        """
        bars = rules.NumericsThresholds.of_logits(self.model.thresholds)
        verdict = rules.LOGIT_RULES[rule](served_logits(), bars)
        if not verdict.passed:
            verdict = rules.with_operators(verdict, _operators_ratio(numerics))
        judge(verdict)

    @criterion("numerics.hidden_states", ends_server=True, offline="hidden_states")
    @pytest.mark.parametrize("rule", rules.HIDDEN_STATE_RULES)
    def test_hidden_states_match_reference(
        self, rule: str, numerics: NumericsSession, judge: Judge
    ) -> None:
        """The last hidden states of text and image tokens are fp32's up to bf16's rounding.

        They come from the same engine's pooling runner, which is the model without its output
        layer: what is off here was off before the logits.

        If this fails: if numerics.logits holds, suspect the pooling runner itself. If both fail,
        the output layer is not to blame; see numerics.transformers for whether the operators are.
        """
        _require_engines(numerics, judge)
        bars = rules.NumericsThresholds.of_hidden_states(self.model.thresholds)
        judge(rules.HIDDEN_STATE_RULES[rule](numerics.hidden_states(), bars))

    @criterion("numerics.transformers", ends_server=True, offline="transformers")
    @pytest.mark.parametrize("rule", _OPERATOR_RULES)
    def test_operators_match_reference(
        self, rule: str, numerics: NumericsSession, judge: Judge
    ) -> None:
        """Transformers on the device, in bf16, is fp32 on CPU up to rounding: without any engine.

        This is what adaptation documents measure. It runs operator by operator, so that a wrong one
        is told from a wrong engine.

        If this fails: an operator of the device is less accurate than bf16 asks for, or wrong. The
        message says which part of the sequence is off; then compare layer by layer (msprobe) with
        the CPU, image preprocessing and vision tower first where image positions are off.
        """
        _require_engines(numerics, judge)
        of, _, name = rule.partition("-")
        measures = numerics.operators()[of]
        if of == "logits":
            bars = rules.NumericsThresholds.of_logits(self.model.thresholds)
            judge(rules.LOGIT_RULES[name](measures, bars))
        else:
            bars = rules.NumericsThresholds.of_hidden_states(self.model.thresholds)
            judge(rules.HIDDEN_STATE_RULES[name](measures, bars))

    @criterion("numerics.fp32_probe", ends_server=True, offline="float32")
    def test_float32_leaves_no_rounding(self, numerics: NumericsSession, judge: Judge) -> None:
        """In float32 the engine's logits are the reference's to a hundredth of bf16's rounding.

        What bf16 hides shows here: weights that are off by 0.1 % are invisible in bf16, and off by
        many times the bar in float32.

        If this fails: where numerics.logits holds, the defect is smaller than bf16's rounding. Look
        for weights that were converted twice, for constants (eps, RoPE base, image mean) that
        differ a little, and for operators that compute in bf16 whatever they are given.
        """
        _require_engines(numerics, judge)
        platform = numerics.slot.session.run.platform
        if not platform.serves_float32:
            judge.not_applicable(f"float32 is not served on the platform {platform.name}")
        judge(rules.judge_float32(numerics.float32()))


def _require_engines(numerics: NumericsSession, judge: Judge) -> None:
    if not numerics.slot.starts_engines:
        judge.cannot_run("needs engines of our own, and the endpoint is someone else's")


def _operators_ratio(numerics: NumericsSession) -> float | str:
    """R of Transformers on the device, or why there is none.

    It is asked whether numerics.transformers is selected or not, so that a failure says the same
    whatever else runs. It is a hint: nothing that goes wrong with it touches the verdict.
    """
    if not numerics.slot.starts_engines:
        return "the endpoint's device cannot be reached"
    try:
        return numerics.operators()["logits"].error_ratio.value
    except Exception as error:
        return str(error).partition("\n")[0] or type(error).__name__
