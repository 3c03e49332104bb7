"""determinism.*: do equal requests get equal answers?"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from ..criteria import determinism as rules
from ..criteria.criterion import Cases
from ..errors import PreconditionError
from ..session.answers import Answers
from ..session.judge import Judge
from ..spec.case import Capability, Case, Sampling
from ..spec.thresholds import BATCH, REPEATS, SEEDS
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..observation.answers import Completion

_TEMPERATURES = (1.0, 2.0)
# Nobody is sure of it: a model that was trained on it has many answers, others ramble.
_OPEN = Case(
    "text/open", Capability.TEXT, "Write a short poem about a colour of your choice.", max_tokens=32
)


class DeterminismCriteria(Criteria):
    """Criteria of repeatability; each docstring is the criterion's documentation."""

    @criterion("determinism.repeat", cases=Cases.ALL)
    def test_repeat_runs_agree(
        self, case: Case, answers: Answers, client: Client, judge: Judge
    ) -> None:
        """Three greedy runs of one request are identical, token by token.

        At temperature 0 nothing is drawn, so a difference comes from kernels that add in another
        order each time, and any comparison with a baseline becomes a lottery.

        If this fails: on Ascend set HCCL_DETERMINISTIC=true, LCCL_DETERMINISTIC=1,
        ATB_MATMUL_SHUFFLE_K_ENABLE=0 and ATB_LLM_LCOC_ENABLE=0 one at a time; then try
        enforce_eager to tell graph mode from kernels.
        """
        first = answers(case)
        again = [client.complete(case) for _ in range(REPEATS - 1)]
        bar = self.model.thresholds.agreement
        judge(rules.judge_agreement({case.id: first}, {case.id: again}, bar))

    @criterion("determinism.seeded")
    def test_seeded_runs_agree(self, client: Client, judge: Judge) -> None:
        """A sampled answer repeats under its seed, and another seed gives another answer.

        Eight seeds are asked twice, at temperature 1, or 2 where the model is too sure at 1. Where
        all of them give one answer nothing shows that the seed does anything: an error.

        If this fails: the request's seed does not reach the sampler; look for a custom sampler or a
        proxy that drops the field.
        """
        # Chance may draw anything, an empty answer too, so these are not judged as answers.
        with client.disposable() as sampler:
            for temperature in _TEMPERATURES:
                first = _sampled(sampler, temperature)
                if rules.distinct(first.values()) > SEEDS // 2:
                    break
            again = _sampled(sampler, temperature)
        judge(rules.judge_seeds(first, again, self.model.thresholds.agreement))

    @criterion("determinism.concurrent")
    def test_concurrent_runs_agree(
        self, all_cases: tuple[Case, ...], answers: Answers, client: Client, judge: Judge
    ) -> None:
        """A request answered alone and among eight others gets the same answer.

        Batches change the shape of every matrix product, and an engine under load is the one that
        users meet.

        If this fails: if the first difference is a near-tie, rounding differs with the batch size
        (VLLM_BATCH_INVARIANT=1 where the build has it); otherwise look for state shared between
        requests: image embeddings, LoRA slots, positions.
        """
        together = [all_cases[index % len(all_cases)] for index in range(BATCH)]
        alone = {case.id: answers(case) for case in together}
        among = client.ask_together(together)
        got = {label: [a for a in among if a.case_id == label] for label in alone}
        judge(rules.judge_agreement(alone, got, self.model.thresholds.agreement))

    @criterion("determinism.prefix_cache", needs=Capability.IMAGE)
    def test_prefix_cache_is_exact(
        self, image_cases: tuple[Case, ...], client: Client, judge: Judge
    ) -> None:
        """A prefix-cache hit gives the cold answer; another image under the same text never hits.

        A cache keyed by text alone returns one user's page to another.

        If this fails: serve with enable_prefix_caching=False to confirm; then look at how image
        hashes enter the block hashes, and at the attention kernel for partly cached prompts.
        """
        if self.model.serve.get("enable_prefix_caching") is False:
            judge.not_applicable("the model is served with enable_prefix_caching=False")
        one, other = _two_of_one_size(image_cases)
        salt, other_salt = secrets.token_hex(8), secrets.token_hex(8)
        cold = client.complete(one, Sampling(one.max_tokens, cache_salt=salt))
        hit = client.complete(one, Sampling(one.max_tokens, cache_salt=salt))
        other_warm = client.complete(other, Sampling(other.max_tokens, cache_salt=salt))
        other_cold = client.complete(other, Sampling(other.max_tokens, cache_salt=other_salt))
        if hit.usage is None or not hit.usage.cached_tokens:
            raise PreconditionError(
                f"{one.id}: the second of two equal requests reported no cached tokens, so a cache "
                "hit could not be judged. Serve with enable_prompt_tokens_details, and with a "
                "prompt longer than one cache block; if caching is off, say so with "
                "serve={'enable_prefix_caching': False}."
            )
        judge(rules.judge_prefix_cache(cold, hit, other_cold, other_warm))

    @criterion("determinism.restart")
    def test_restart_agrees(
        self,
        server: Server,
        all_cases: tuple[Case, ...],
        answers: Answers,
        client: Client,
        judge: Judge,
    ) -> None:
        """A freshly started server gives the answers that the first one gave.

        If this fails: something that is decided at start-up differs between starts: autotuned
        kernels, graph capture order, uninitialised memory, weights loaded in parts.
        """
        few = all_cases[:BATCH]
        before = {case.id: answers(case) for case in few}
        if not server.can_restart:
            judge.cannot_run("an endpoint that someone else runs cannot be restarted")
        server.restart()
        after = {case.id: [client.complete(case)] for case in few}
        judge(rules.judge_agreement(before, after, self.model.thresholds.agreement))


def _sampled(client: Client, temperature: float) -> dict[str, Completion]:
    """Name of a seed -> an answer sampled under it.

    No prompt meets a cache: rounding that differs between a cold prompt and a cached one would
    turn a draw.
    """
    return {
        f"seed {seed}": client.complete(
            _OPEN, Sampling(_OPEN.max_tokens, temperature, seed, cache_salt=secrets.token_hex(8))
        )
        for seed in range(1, SEEDS + 1)
    }


def _two_of_one_size(cases: tuple[Case, ...]) -> tuple[Case, Case]:
    """Two image cases that only their image tells apart."""
    for index, one in enumerate(cases):
        for other in cases[index + 1 :]:
            if one.prompt == other.prompt and one.images != other.images:
                return one, other
    raise PreconditionError(
        "the prefix cache needs two image cases with one prompt; fixtures/cases.json has none."
    )
