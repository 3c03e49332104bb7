"""Criteria determinism.*: equal requests get equal answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from ..criteria import determinism as rules
from ..criteria import recomputed
from ..criteria.criterion import Cases
from ..errors import PreconditionError
from ..observation.answers import Refusal, require_answer
from ..observation.parameters import UnsuitedError
from ..session import next_turn
from ..session.answers import Answers
from ..session.case_sizes import pixels
from ..session.crowds import Crowds
from ..session.image_runs import ImageRuns
from ..session.judge import Judge
from ..spec.case import Capability, Case, Sampling
from ..spec.thresholds import BATCH, REPEATS, SEEDS, SPREAD_SECONDS
from .base import Criteria
from .criterion import criterion
from .open_prompt import OPEN, open_cases

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..observation.answers import Completion
    from ..spec.model import ModelSpec

_TEMPERATURES = (1.0, 2.0)
# Numbers of requests at one time: powers of two, and numbers between them.
_LOADS = ("2", "3", "5", "8", "8-streamed", "12", "12-spread")
# Pixels that fill two blocks of vllm-ascend's prefix cache, which have 128 tokens. A token has at
# most 32 x 32 pixels. A prompt that fills no block is not cached.
_TWO_BLOCKS = 2 * 128 * 32 * 32
_HIT_TRIES = 4
_UNSURE = (
    OPEN,
    Case("text/word", Capability.TEXT, "Name any word that comes to your mind.", max_tokens=32),
    Case("text/story", Capability.TEXT, "Tell a story that nobody has told.", max_tokens=32),
    Case("text/digits", Capability.TEXT, "Write some digits in any order.", max_tokens=32),
)


class DeterminismCriteria(Criteria):
    """Criteria of repeated, concurrent, cached and restarted requests."""

    @criterion("determinism.repeat", cases=Cases.STILL)
    def test_repeat_runs_agree(self, case: Case, answers: Answers, judge: Judge) -> None:
        """{repeats} greedy runs of one request give identical tokens.

        Each run is cold: the image and the prompt are computed again, and a prompt from the prefix
        cache is an error. At temperature 0 nothing is sampled. A difference comes from kernels
        whose order of addition changes between runs, and it makes any comparison with a golden
        unreliable.

        If this fails: on Ascend set HCCL_DETERMINISTIC=true, LCCL_DETERMINISTIC=1,
        ATB_MATMUL_SHUFFLE_K_ENABLE=0 and ATB_LLM_LCOC_ENABLE=0 one at a time. Then try
        enforce_eager, which separates defects of graph mode from defects of kernels.
        """
        first, again = answers(case), answers.again(case, REPEATS - 1)
        judge(rules.judge_repeat(first, again, self.model.thresholds.agreement))

    @criterion("determinism.cold", needs=Capability.IMAGE)
    def test_computed_again_agrees(
        self, any_image_cases: tuple[Case, ...], image_runs: ImageRuns, judge: Judge
    ) -> None:
        """An image that is computed {cold_runs} times gives the same log-probabilities each time.

        A server keeps the embedding of an image and the blocks of a prompt in caches, so that a
        repeated request usually compares a cached embedding with itself. Here each request has a
        cache salt, and each image a uuid and a file of its own, with the same pixels. The golden's
        answer is forced. Two computations differ by at most {cold_ratio} of the reference's own
        bf16 error. The images are the first, the smallest and the largest of the suite; the largest
        is computed twice.

        If this fails: the message says whether the difference comes in with the image. If it does,
        look at the vision tower: attention without a fixed order of addition, uninitialised memory,
        padded lengths of a graph; then at the image processor. If the text before the image changes
        too, look at determinism.repeat of a text.
        """
        runs, caches = image_runs.again(any_image_cases)
        judge(recomputed.judge_cold(runs, self.model.thresholds.cold_ratio, caches))

    @criterion("determinism.batched_images", needs=Capability.IMAGE)
    @pytest.mark.parametrize("rule", ["answers", "logits"])
    def test_images_together_agree(
        self,
        rule: str,
        image_cases: tuple[Case, ...],
        any_image_cases: tuple[Case, ...],
        image_runs: ImageRuns,
        judge: Judge,
    ) -> None:
        """New images that arrive at one moment get the results of each image alone.

        The engine computes images together that it first sees in one step. Different images are
        sent at once: first {batch} of one size, then {batch} of several sizes. Each request is
        cold. Rule `answers`: each answer begins like the answer about the image alone. Rule
        `logits`: the logits of forced answers differ from those of the image alone by at most
        {error_ratio} of the reference's own bf16 error.

        If this fails: look at the vision tower's attention over several images: lengths that are
        given per image instead of cumulatively, a mask or positions of the first image for all,
        embeddings that are returned in another order. To confirm, serve with max_num_seqs=1.
        """
        if rule == "answers":
            judge(recomputed.judge_batched_answers(*image_runs.answers_together(image_cases)))
        else:
            pairs, caches = image_runs.logits_together(any_image_cases)
            judge(recomputed.judge_batched(pairs, self.model.thresholds.error_ratio, caches))

    @criterion("determinism.unsure")
    def test_unsure_answers_agree(self, client: Client, judge: Judge) -> None:
        """A greedy answer of which the model is unsure is the same every time.

        A server that samples although the temperature is 0 shows only where the model is unsure:
        trained answers have margins that sampling hardly ever changes. The prompt is the one of
        four whose greedy answer is least likely at temperature {unsure_temperature}. It is asked as
        often as it takes to see such a server with a probability of at least 99.9 %, at most
        {unsure_runs} times. If that is not enough, the result is an error.

        If this fails: the request's temperature does not reach the sampler, or the checkpoint's
        generation_config.json overrides it (--generation-config=vllm). If single tokens differ at
        near-ties, see determinism.repeat.
        """
        # The answer to an open prompt may be anything: the degeneration guard must not see it.
        with client.disposable() as other:
            answer = rules.least_certain(other.complete(case, cold=True) for case in _UNSURE)
            case = next(case for case in _UNSURE if case.id == answer.case_id)
            runs = rules.runs_to_see_sampling(answer)
            again = [other.complete(case, cold=True) for _ in range(runs)]
        minimum = self.model.thresholds.agreement
        judge(rules.judge_agreement({case.id: answer}, {case.id: again}, minimum))

    @criterion("determinism.seeded")
    def test_seeded_runs_agree(
        self, all_cases: tuple[Case, ...], client: Client, judge: Judge
    ) -> None:
        """An equal seed gives an equal sampled answer, and different seeds give different answers.

        {seeds} seeds are sampled twice on a text and twice on an image, at temperature 1, or at
        temperature 2 if temperature 1 gives too few different answers to one of them. If all seeds
        give the same answer to one, the result is an error: an ignored seed could not be detected.
        One request with a seed and n={seeds} gets answers that are not all the same: its user pays
        for each of them.

        If this fails: the request's seed does not reach the sampler. Look for a custom sampler or
        a proxy that drops the field. If all answers to one request are equal, look at how the
        engine or a proxy makes n requests of one: each needs a seed of its own.
        """
        first, again, several = {}, {}, {}
        for case in open_cases(all_cases):
            for temperature in _TEMPERATURES:
                first[case.id] = _sampled(client, case, temperature)
                if rules.vary(first[case.id].values()):
                    break
            again[case.id] = _sampled(client, case, temperature)
            fields = {"temperature": temperature, "seed": 0, "n": SEEDS}
            several[case.id] = _answers(case, client.ask_all_with(case, fields))
        judge(rules.judge_seeds(first, again, several, self.model.thresholds.agreement))

    @criterion("determinism.concurrent")
    @pytest.mark.parametrize("load", _LOADS)
    def test_concurrent_runs_agree(
        self, load: str, crowds: Crowds, answers: Answers, judge: Judge
    ) -> None:
        """A request gets the same answer alone and among others.

        Each row is a number of requests, texts and images of several sizes in turns, sent at one
        moment, or one every {spread_seconds} s (`spread`). All are cold: their images and prompts
        are computed again. Those of row `streamed` are streamed, and the joined pieces of each
        stream are judged. The number of requests changes the shape of every matrix product, and
        where kernels and graphs pad to powers of two, numbers between them are the likeliest to go
        wrong. If an answer differs, the reference has to be within rounding of a tie there. A
        number above max_num_seqs is not applicable. The message has the most requests that
        `/metrics` showed as running meanwhile; a server may compute fewer at once than are sent.

        If this fails: only from some number on: look at the sizes of captured graphs and at padding
        (enforce_eager to confirm). An answer of another case: look for state shared between
        requests: image embeddings, LoRA slots, positions. Only `streamed`: look at how the
        API server or a proxy assigns pieces to streams. Set VLLM_BATCH_INVARIANT=1 if the build
        supports it, to see whether rounding is the cause.
        """
        judge_crowd(load, self.model, crowds, answers, judge)

    @criterion("determinism.prefix_cache", needs=Capability.IMAGE)
    def test_prefix_cache_is_exact(
        self, any_image_cases: tuple[Case, ...], client: Client, judge: Judge
    ) -> None:
        """A prefix-cache hit gives the same answer as a cold cache.

        Another image under the same text hits at most the text before the image. If the cache key
        ignored the image, one user's answer would be about another user's page.

        If this fails: serve with enable_prefix_caching=False to confirm. Then look at how image
        hashes enter the block hashes, and at the attention kernel for partly cached prompts.
        """
        if self.model.serve.get("enable_prefix_caching") is False:
            judge.not_applicable("the model is served with enable_prefix_caching=False")
        from ..engines.cold import new_salt

        one, other = _two_with_one_prompt(any_image_cases)
        salt, other_salt = new_salt(), new_salt()
        first = client.complete(one, Sampling(one.max_tokens, cache_salt=salt))
        hit = _hit(client, one, salt)
        other_warm = client.complete(other, Sampling(other.max_tokens, cache_salt=salt))
        other_cold = client.complete(other, Sampling(other.max_tokens, cache_salt=other_salt))
        if not hit.cached_tokens:
            raise PreconditionError(
                f"{one.id}: the second of two equal requests reported no cached tokens, so a cache "
                "hit could not be judged. Serve with --enable-prompt-tokens-details, and with a "
                "prompt longer than one cache block. If caching is off, declare it with "
                "serve={'enable_prefix_caching': False}."
            )
        judge(rules.judge_prefix_cache(first, hit, other_cold, other_warm))

    @criterion("determinism.next_turn", needs=Capability.IMAGE)
    def test_next_turn_is_exact(
        self,
        image_cases: tuple[Case, ...],
        any_image_cases: tuple[Case, ...],
        client: Client,
        judge: Judge,
    ) -> None:
        """A turn that hits the blocks of the answer before it gets the answer of a cold cache.

        The engine caches the blocks that it writes while it generates, and a conversation goes on
        behind them. So the model is asked about an image, and then to repeat its answer: once right
        after the first turn, once with another cache salt. Where two tokens are about equally
        likely, either is right. If the first answer fills no block, it is asked to be longer. If
        the second turn never hits a generated block, the result is not applicable, because nothing
        was shown. A server that does not tell the cached tokens is an error of
        determinism.prefix_cache.

        If this fails: serve with enable_prefix_caching=False to confirm. Then look at which blocks
        are cached while tokens are generated: a block that is not full, a rejected draft token of
        speculative decoding, or a hash of other tokens than those in the block.
        """
        if self.model.serve.get("enable_prefix_caching") is False:
            judge.not_applicable("the model is served with enable_prefix_caching=False")
        # A long answer fills blocks, and a taught one becomes the same tokens when it is sent back.
        one = max(image_cases or any_image_cases, key=lambda case: len(case.truth or ""))
        try:
            turns = next_turn.ask(client, one)
        except UnsuitedError as error:
            judge.not_applicable(f"the server refuses a request of the conversation: {error}")
        verdict = rules.judge_next_turn(turns)
        if verdict.passed and not turns.hits_answer:
            judge.not_applicable(
                f"no second turn hit a block of the answer before it: {verdict.reason}"
            )
        judge(verdict)

    @criterion("determinism.restart")
    def test_restart_agrees(
        self,
        server: Server,
        all_cases: tuple[Case, ...],
        answers: Answers,
        client: Client,
        judge: Judge,
    ) -> None:
        """After a restart the server gives the same answers as before.

        Compared are the answers to the first {batch} cases.

        If this fails: a decision at start-up differs between starts. Candidates are autotuned
        kernels, graph capture order, uninitialised memory and incompletely loaded weights.
        """
        few = all_cases[:BATCH]
        before = {case.id: answers(case) for case in few}
        if not server.can_restart:
            judge.cannot_run("the suite did not start this endpoint, so it cannot restart it")
        server.restart()
        after = {case.id: [client.complete(case, cold=True)] for case in few}
        judge(rules.judge_agreement(before, after, self.model.thresholds.agreement))


def judge_crowd(
    load: str, model: ModelSpec, crowds: Crowds, answers: Answers, judge: Judge
) -> None:
    """Judges the answers to many requests at one time.

    Args:
        load: the number of requests, with "-spread" if they are not sent at one moment, and with
            "-streamed" if their answers are streamed.
        model: the model.
        crowds: sends them.
        answers: the answers to the cases alone.
        judge: gets the verdict.
    """
    number, _, way = load.partition("-")
    count, most = int(number), model.serve.get("max_num_seqs")
    if isinstance(most, int) and count > most:
        judge.not_applicable(f"the model is served with max_num_seqs={most}")
    if way == "streamed":
        crowd = crowds.stream(count, answers)
    else:
        crowd = crowds.ask(count, SPREAD_SECONDS if way == "spread" else 0.0, answers)
    recomputed.require_uncached(*crowd.together)
    verdict = rules.judge_load(crowd.alone, crowd.together, crowds.reference)
    if not verdict.passed:
        errors = _errors(crowds, verdict.evidence["differing"])
        verdict = rules.with_errors(verdict, errors, len(crowd.together))
    judge(rules.with_running(verdict, crowd.running))


def _hit(client: Client, case: Case, salt: str) -> Completion:
    """The first answer from the prefix cache, or the last one of `_HIT_TRIES`.

    Replicas behind one address have a cache each, and take the requests by turns.
    """
    for _ in range(_HIT_TRIES):
        answer = client.complete(case, Sampling(case.max_tokens, cache_salt=salt))
        if answer.cached_tokens:
            break
    return answer


def _errors(crowds: Crowds, names: Sequence[str]) -> rules.ForcedErrors | str:
    """The errors of forced answers, alone and together, or the reason why they are unknown."""
    try:
        return crowds.errors(names)
    except Exception as error:  # whatever a wrong server replies; the verdict is there without it
        return str(error).partition("\n")[0] or type(error).__name__


def _sampled(client: Client, case: Case, temperature: float) -> dict[str, Completion]:
    """Name of a seed -> an answer sampled with that seed.

    Each prompt is computed again. Otherwise the second one would hit the prefix cache, and its
    different rounding could change the sampled token.
    """
    return {
        f"seed {seed}": require_answer(
            case.id, client.ask_with(case, {"temperature": temperature, "seed": seed})
        )
        for seed in range(SEEDS)  # 0 is a seed, too
    }


def _answers(case: Case, replies: tuple[Completion, ...] | Refusal) -> tuple[Completion, ...]:
    """The answers; none if the server has no n, or not so many of them.

    Raises:
        ServerError: the server failed.
    """
    if not isinstance(replies, Refusal):
        return replies
    if not replies.is_client_error:
        require_answer(case.id, replies)
    return ()


def _two_with_one_prompt(cases: tuple[Case, ...]) -> tuple[Case, Case]:
    """Two cases with the same prompt and different images; the first has a large image.

    It is the smallest that fills `_TWO_BLOCKS`, else the largest.
    """
    single = [case for case in cases if case.every_image == case.images and len(case.images) == 1]
    pairs = [
        (one, other)
        for one in single
        for other in single
        if one.prompt == other.prompt and one.images != other.images
    ]
    if not pairs:
        raise PreconditionError(
            "determinism.prefix_cache needs two image cases with the same prompt, and "
            "fixtures/cases.json has none. Add one."
        )
    large = [pair for pair in pairs if pixels(pair[0]) >= _TWO_BLOCKS]
    if large:
        return min(large, key=lambda pair: pixels(pair[0]))
    return max(pairs, key=lambda pair: pixels(pair[0]))
