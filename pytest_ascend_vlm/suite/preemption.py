"""Criterion determinism.preemption: requests that lose their blocks get the same answers."""

from __future__ import annotations

from ..criteria import determinism as rules
from ..session.answers import Answers
from ..session.borders import Borders
from ..session.goldens import Goldens
from ..session.judge import Judge
from ..spec.case import Capability
from .base import Criteria
from .criterion import criterion


class PreemptionCriteria(Criteria):
    """Criteria of a server whose KV cache is full.

    They follow those of the model's own server, because this one replaces it.
    """

    @criterion("determinism.preemption", needs=Capability.IMAGE, ends_server=True)
    def test_preempted_requests_agree(
        self, borders: Borders, answers: Answers, golden: Goldens, judge: Judge
    ) -> None:
        """A request that loses its place in the KV cache gets the answer that it gets alone.

        The model is served with a KV cache for one of the longest prompts, and up to {crowd}
        requests are sent at one moment. A full engine preempts requests: it frees their blocks, and
        computes prompt and answer again later. The server counts that. If an answer differs, the
        reference has to be within rounding of a tie there. In service a cache is full at the
        busiest hour.

        If this fails: look at what a preempted request keeps: computed tokens, positions, image
        embeddings, sampled tokens that are still in flight (asynchronous scheduling). In a
        deployment lower max_num_seqs or max_model_len, so that the cache does not become full.
        """
        if not borders.slot.starts_engines:
            judge.cannot_run("the suite did not start this endpoint, so its cache is not too small")
        if problem := borders.slot.session.run.platform.preemption_problem:
            judge.cannot_run(problem)
        run = borders.run()
        if not run.crowd:
            judge.not_applicable(
                "the longest prompt of the model's cases is so long that a KV cache with room for "
                "it has room for all requests that run at a time"
            )
        by_id = {case.id: case for case in run.crowd}
        alone = {name: answers(case) for name, case in by_id.items()}
        verdict = rules.judge_preemption(
            alone, run.crowded, lambda name: golden(by_id[name]), run.preemptions
        )
        judge(verdict)
