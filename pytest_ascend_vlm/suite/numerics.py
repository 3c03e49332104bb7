"""Criteria numerics.*: logits and hidden states equal the reference's, up to rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..criteria import numerics as rules
from ..criteria.baseline import require_same_prompt
from ..criteria.borders import judge_chunks, judge_hit
from ..criteria.comparison import compare_logits
from ..criteria.criterion import Cases
from ..criteria.generation import (
    judge_generation,
    judge_long_answer,
    require_length,
    require_whole_lists,
)
from ..session.answers import ForcedAnswers
from ..session.borders import Borders
from ..session.comparison import Comparison
from ..session.goldens import Goldens
from ..session.judge import Judge
from ..session.memo import Memo
from ..session.numerics import NumericsSession
from ..spec.case import Capability, Case
from ..spec.thresholds import LONG_ANSWER_TOKENS
from .base import Criteria
from .baseline import require_numerics
from .criterion import criterion

if TYPE_CHECKING:
    from ..criteria.error_statistics import ErrorStatistics
    from ..engines.client import Client
    from ..observation.answers import Reference

_NEEDS_ENGINES = "needs engines started by the suite; the endpoint runs without it"
_OPERATOR_RULES = (
    *(f"logits-{rule}" for rule in rules.LOGIT_RULES),
    *(f"hidden_states-{rule}" for rule in rules.HIDDEN_STATE_RULES),
)


class NumericsCriteria(Criteria):
    """Criteria of logits and hidden states."""

    @criterion("numerics.logits")
    @pytest.mark.parametrize("rule", rules.LOGIT_RULES)
    def test_logits_match_reference(
        self,
        rule: str,
        served_logits: Memo[ErrorStatistics],
        numerics: NumericsSession,
        judge: Judge,
    ) -> None:
        """The logits of forced answers equal the fp32 reference's, up to bf16 rounding.

        The served engine gets the reference's answers as forced tokens, after text and image
        prompts. Its raw logits are compared with float32 logits from CPU, at the positions and
        tokens that the golden keeps.

        Rule `error_ratio`: R, the root mean square error in units of the reference's own bf16
        error, is at most {error_ratio}. Rule `kl_ratio`: K, the same for the KL divergence, is at
        most {kl_ratio}. Correct bf16 engines are near 1, defects at 2 and above. Rules
        `max_abs_error` (at most {logits_max_abs}) and `cosine_similarity` (at least
        {logits_cosine}) are the figures that adaptation documents show. relative_error is reported
        with them but not judged, because logits near zero make it large. Rule `top1_flips`: at most
        {top1_flips:.1%} of the positions have another most likely token, not counting near-ties of
        the reference.

        If this fails: the message says whether image or text positions are wrong, where the error
        begins, and whether Transformers on the same device is wrong too. If so, an operator is
        wrong: bisect with numerics.transformers. If not, look at the engine: attention backend,
        graph mode, KV cache, fused kernels. If the platform serves float32, numerics.fp32_probe
        separates rounding from defects.
        """
        thresholds = rules.NumericsThresholds.of_logits(self.model.thresholds)
        verdict = rules.LOGIT_RULES[rule](served_logits(), thresholds)
        if not verdict.passed:
            verdict = rules.with_operators(verdict, _transformers_ratio(numerics))
        judge(verdict)

    @criterion("numerics.images", needs=Capability.IMAGE, cases=Cases.IMAGE, untaught=True)
    def test_image_logits_match_reference(
        self, case: Case, forced: ForcedAnswers, golden: Goldens, judge: Judge
    ) -> None:
        """For each image, the logits of the forced answer equal fp32's, up to bf16 rounding.

        R of the case, and R of its image positions if there are {enough_image_positions} or more,
        are at most {image_error_ratio}. Over all cases together, a defect of one size, of a
        coloured image or of the second of two images would not show. An image that a tiny
        checkpoint cannot read is judged as well: no right answer is needed.

        If this fails: compare the cases that pass with those that fail. Only large images: look at
        windows and at limits of the vision tower. Only sides that are no multiple of a patch:
        another resizing. Only coloured images: the order of channels, or mean and std. Only several
        images, or several turns: see baseline.order. All images: look at the vision tower, its
        positions and the preprocessing.
        """
        judge(
            rules.judge_image(compare_logits(forced(case), require_numerics(golden(case), judge)))
        )

    @criterion("numerics.clips", needs=Capability.VIDEO, cases=Cases.CLIP, untaught=True)
    def test_clip_logits_match_reference(
        self, case: Case, forced: ForcedAnswers, golden: Goldens, judge: Judge
    ) -> None:
        """For each clip, the logits of the forced answer equal fp32's, up to bf16 rounding.

        R of the case, and R of the positions of its frames if there are {enough_image_positions}
        or more, are at most {image_error_ratio}. The clips are lossless, and every engine takes
        each of their frames once, so both sides get the same pixels. A frame that is dropped,
        repeated, at another place or at another time changes the logits. No right answer is needed.

        If this fails: see baseline.frames: if it names another clip, order or time is wrong. If
        numerics.images passes, look at what only clips have: decoding, sampling of frames, merging
        of two frames into one patch, and positions in time. Only the clip of 0.5 frames a second:
        the engine assumes a frame rate (vLLM did for Qwen2.5-VL:
        https://github.com/vllm-project/vllm/pull/47736).
        """
        judge(
            rules.judge_image(compare_logits(forced(case), require_numerics(golden(case), judge)))
        )

    @criterion("numerics.tokens")
    def test_no_token_is_off_alone(
        self, served_logits: Memo[ErrorStatistics], judge: Judge
    ) -> None:
        """The logit of no single token is off in the same direction everywhere.

        The mean error of each token that is listed at {enough_rows} or more positions is at most
        {token_error} of the reference's own bf16 error. A wrong row of the output layer changes one
        token of a large vocabulary, which R over all tokens does not show.

        If this fails: look at the output layer: a row that was damaged, quantised or split over
        cards unevenly, a vocabulary that was padded, a logit bias.
        """
        judge(rules.judge_tokens(served_logits()))

    @criterion("numerics.answers", cases=Cases.ALL)
    def test_generation_matches_forced(
        self, case: Case, comparison: Comparison, forced: ForcedAnswers, judge: Judge
    ) -> None:
        """The log-probabilities listed with an answer equal those of the same answer, forced.

        Generation computes one token after another from the KV cache; a forced answer is computed
        in one pass. Compared are the tokens up to the first one that differs from the golden's. The
        mean difference is at most {logprobs_ratio} times the difference between bf16 and fp32 in
        the reference itself.

        If this fails: if baseline.logprobs passes, one pass is right and generation is wrong: look
        at the decode path: KV cache and block tables, positions of new tokens, graph mode. If the
        first token is already off, the listed log-probabilities may belong to other positions.
        """
        answer, reference = comparison(case)
        numerics = require_numerics(reference, judge)
        require_whole_lists(answer)
        judge(judge_generation(answer, forced(case), numerics, self.model.thresholds))

    @criterion("numerics.long_answer", needs=Capability.TEXT)
    def test_long_generation_matches_forced(
        self, client: Client, all_cases: tuple[Case, ...], golden: Goldens, judge: Judge
    ) -> None:
        """An answer of {long_answer_tokens} tokens has the log-probabilities of its tokens, forced.

        A text is asked with `ignore_eos`, so that the answer goes on behind its end; what it says
        does not matter. Each {long_answer_stretch} tokens are judged together: their mean
        difference is at most {logprobs_ratio} times the difference between bf16 and fp32 in the
        reference itself. Short answers do not show a border that lies far behind the prompt: a
        table of positions that ends, a block of the KV cache, a graph for longer sequences.

        If this fails: the message says where it begins. At a power of two: look at tables of
        positions (mRoPE), at the block size of the KV cache and at limits of attention kernels.
        From the first token on: see numerics.answers.
        """
        case = _first_text(all_cases, golden)
        reference = golden(case)
        numerics = require_numerics(reference, judge)
        tokens = _answer_length(client, reference)
        answer = client.long_answer(case, tokens)
        require_same_prompt(answer, reference)
        if not answer.prompt_token_ids or not answer.token_ids:
            judge.cannot_run("the server reports no token ids (return_token_ids)")
        require_length(answer, tokens)
        require_whole_lists(answer)
        forced = client.score(case.id, answer.prompt_token_ids, answer.token_ids)
        judge(judge_long_answer(answer, forced, numerics, self.model.thresholds))

    @criterion("numerics.hidden_states", ends_server=True, offline="hidden_states")
    @pytest.mark.parametrize("rule", rules.HIDDEN_STATE_RULES)
    def test_hidden_states_match_reference(
        self, rule: str, numerics: NumericsSession, judge: Judge
    ) -> None:
        """The last hidden states of text and image tokens equal fp32's, up to bf16 rounding.

        The engine's pooling runner returns them. It runs the model without its output layer, so an
        error here arose before the logits. R is at most {error_ratio}, the largest error at most
        {hidden_max_abs}, the cosine similarity at least {hidden_cosine}.

        If this fails: if numerics.logits passes, suspect the pooling runner itself. If both fail,
        the output layer is not the cause; numerics.transformers shows whether the operators are.
        """
        require_engines(numerics, judge)
        thresholds = rules.NumericsThresholds.of_hidden_states(self.model.thresholds)
        judge(rules.HIDDEN_STATE_RULES[rule](numerics.hidden_states(), thresholds))

    @criterion("numerics.borders", needs=Capability.IMAGE, ends_server=True)
    @pytest.mark.parametrize("rule", ["steps", "prefix_hit"])
    def test_borders_change_nothing(
        self, rule: str, borders: Borders, golden: Goldens, judge: Judge
    ) -> None:
        """Images that are cut by a border give the same logits.

        The model is served in steps of {step_tokens} tokens (max_num_batched_tokens), so that
        borders fall before, into and behind images. Rule `steps`: R of each prompt is at most
        {image_error_ratio}. An image that such a server has no room for is named. Rule
        `prefix_hit`: after another question about the same image, the image is in the prefix cache
        up to a block's end; the answer's log-probabilities differ from those of the same answer,
        computed without the cache, by at most {cold_ratio} times the reference's own rounding. Both
        are computed in the same steps, and 20 tokens of an image that come from the wrong place
        cost hardly more than one rounding.

        If this fails: look at how embeddings of an image are cut at a border (an offset into the
        encoder cache), at mRoPE positions of a partly computed prompt, and at attention over blocks
        from the cache. Serve with disable_chunked_mm_input=True, or without the prefix cache, to
        confirm.
        """
        if not borders.slot.starts_engines:
            judge.cannot_run(_NEEDS_ENGINES)
        declared = {"steps": "enable_chunked_prefill", "prefix_hit": "enable_prefix_caching"}[rule]
        if self.model.serve.get(declared) is False:
            judge.not_applicable(f"the model is served with {declared}=False")
        run = borders.run()
        if rule == "steps":
            compared = [(one, golden.numerics(case)) for case, one in run.forced]
            judge(judge_chunks(compared, run.too_large))
        else:
            reference = golden(run.hit_case)
            judge(judge_hit(run.hit, run.cold, reference, self.model.thresholds))

    @criterion("numerics.transformers", ends_server=True, offline="transformers")
    @pytest.mark.parametrize("rule", _OPERATOR_RULES)
    def test_operators_match_reference(
        self, rule: str, numerics: NumericsSession, judge: Judge
    ) -> None:
        """Transformers in bf16 on the device equals fp32 on CPU, up to rounding.

        Adaptation documents report this comparison. It uses no vLLM: if it passes and
        numerics.logits fails, the engine is wrong, not an operator of the device. The rules and
        thresholds are those of numerics.logits and numerics.hidden_states.

        If this fails: an operator of the device is less accurate than bf16 requires, or wrong. The
        message says which part of the sequence is wrong. Compare layer by layer with the CPU
        (msprobe). If image positions are wrong, begin with image preprocessing and vision tower.
        """
        require_engines(numerics, judge)
        numbers, _, name = rule.partition("-")
        statistics = numerics.operators()[numbers]
        if numbers == "logits":
            thresholds = rules.NumericsThresholds.of_logits(self.model.thresholds)
            judge(rules.LOGIT_RULES[name](statistics, thresholds))
        else:
            thresholds = rules.NumericsThresholds.of_hidden_states(self.model.thresholds)
            judge(rules.HIDDEN_STATE_RULES[name](statistics, thresholds))

    @criterion("numerics.fp32_probe", ends_server=True, offline="float32")
    def test_float32_leaves_no_rounding(self, numerics: NumericsSession, judge: Judge) -> None:
        """In float32 the engine's error is at most {float32_error_ratio} of bf16 rounding.

        Float32 reveals defects that bf16 rounding hides: an error of 0.1 % in the weights is
        invisible in bf16, and many times the threshold in float32.

        If this fails: if numerics.logits passes, the defect is smaller than bf16 rounding. Look
        for weights that were converted twice, for constants (eps, RoPE base, image mean) that
        differ a little, and for operators that compute in bf16 for any input dtype.
        """
        require_engines(numerics, judge)
        platform = numerics.slot.session.run.platform
        if not platform.serves_float32:
            judge.not_applicable(f"the platform {platform.name} does not serve float32")
        judge(rules.judge_float32(numerics.float32()))


def _first_text(cases: tuple[Case, ...], golden: Goldens) -> Case:
    """The first text whose answer in the golden is the reference's own; else the first text."""
    texts = [case for case in cases if case.group == Cases.TEXT.value]
    return next((case for case in texts if not golden(case).is_published), texts[0])


def _answer_length(client: Client, reference: Reference) -> int:
    """`LONG_ANSWER_TOKENS`, or what the server has room for behind the prompt and its own token."""
    prompt = len(reference.prompt_token_ids or ())
    limit = client.max_model_len() or LONG_ANSWER_TOKENS + prompt + 1
    return min(LONG_ANSWER_TOKENS, limit - prompt - 1)


def require_engines(numerics: NumericsSession, judge: Judge) -> None:
    """Skips the test if an endpoint is judged, so that the suite cannot start engines."""
    if not numerics.slot.starts_engines:
        judge.cannot_run(_NEEDS_ENGINES)


def _transformers_ratio(numerics: NumericsSession) -> float | str:
    """R of Transformers on the device, or the reason why it is unknown.

    It is measured even if numerics.transformers is not selected, so that the message does not
    depend on the selection. It is only a hint, so an error here does not change the verdict.
    """
    if not numerics.slot.starts_engines:
        return "the suite did not start the endpoint and cannot use its device"
    try:
        return numerics.operators()["logits"].error_ratio.value
    except Exception as error:
        return str(error).partition("\n")[0] or type(error).__name__
