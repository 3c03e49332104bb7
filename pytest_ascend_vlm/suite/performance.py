"""performance.*: how fast is it, and is that what it has to be?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from ..criteria import performance as rules
from ..errors import PreconditionError
from ..observation.load import Load, Timing
from ..session.judge import Judge
from ..session.run import Run
from ..spec.case import Capability
from ..spec.thresholds import STORED_RUNS
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..session.performance import PerformanceSession

_KINDS = pytest.mark.parametrize("kind", rules.KINDS)
_LEVELS = (*(f"c{level}" for level in rules.LEVELS), "ramp")


class PerformanceCriteria(Criteria):
    """Criteria of speed; each docstring is the criterion's documentation."""

    @criterion("performance.single_stream")
    @_KINDS
    def test_requests_one_at_a_time(
        self,
        kind: str,
        performance: PerformanceSession,
        benchmark_timings: Callable[[Sequence[Timing]], None],
        judge: Judge,
    ) -> None:
        """30 streamed requests, one at a time, are all answered; latency, TTFT and TPOT are kept.

        No request meets a cache: each has a salt of its own, and its image differs from all others
        in the last bits of one pixel. pytest-benchmark is given their latencies, so its JSON and
        its comparisons work as everywhere. Means, medians and p90 are the figures that limits and
        stored runs are about.

        If this fails: the first error is the server's own; its log has more. An answer that is
        none makes its time meaningless: look at the degeneration that is named.
        """
        load = performance.load(kind)
        benchmark_timings(load.timings)
        judge_load(performance, judge, kind, load)

    @criterion("performance.image_prefill", needs=Capability.IMAGE)
    def test_image_prefill_is_in_proportion(
        self, performance: PerformanceSession, judge: Judge
    ) -> None:
        """The first token after an image takes at most 20 times what as many tokens of text take.

        Image and text of equal length are asked in turns, so the ratio is what preprocessing and
        the vision encoder add. Arithmetic explains about 13 for a 0.7B encoder before a 0.5B
        decoder at 2,500 image tokens, and less for larger decoders. Far more is an encoder that
        runs without its kernels, or on the host.

        If this fails: profile the encoder alone. On Ascend look for attention that falls back to
        an unfused kernel, for float32, and for images that are preprocessed by one slow thread.
        """
        judge(rules.judge_prefill(performance.prefill(), self.model.thresholds.prefill_ratio))

    @criterion("performance.load", needs=Capability.IMAGE)
    @pytest.mark.parametrize("level", _LEVELS)
    def test_load_is_answered(
        self, level: str, performance: PerformanceSession, judge: Judge
    ) -> None:
        """Under load every request is answered, and by an answer.

        1, 2, 4 and 8 at a time, then a ramp of ever more requests a second, up to what the highest
        level was answered at.

        `vllm bench serve` sends page images that no cache has seen. Not one request may fail, and
        every answer passes the degeneration guard, because garbage is fast. Goodput of the ramp
        counts answers whose TTFT and TPOT are at most 5 times those of one request at a time.

        If this fails: errors under load alone are usually memory (lower max_num_seqs or
        gpu_memory_utilization) or a queue that gives up; garbage under load alone is shared state.
        """
        name = f"load.{level}"
        judge_load(performance, judge, name, performance.load(name))

    @criterion("performance.scaling", needs=Capability.IMAGE)
    def test_throughput_scales(self, performance: PerformanceSession, judge: Judge) -> None:
        """8 requests at a time give at least 1.5 times the throughput of one at a time.

        Batching is what an inference engine is for. A server that answers in single file has the
        same latency when nobody else is there, and fails in production.

        If this fails: look for max_num_seqs=1, a lock in the preprocessing of images, or a proxy
        with one worker.
        """
        alone, together = (performance.load(f"load.c{level}") for level in (1, max(rules.LEVELS)))
        judge(rules.judge_scaling(alone, together, self.model.thresholds.load_scaling))

    @criterion("performance.cpu_use", needs=Capability.IMAGE)
    def test_waiting_costs_little(self, performance: PerformanceSession, judge: Judge) -> None:
        """A server that waits uses at most a fifth of the CPU time of one that answers pages.

        Mean and peak use of its whole process tree are kept, in percent of the cores this process
        may use. Workers that poll take cores from the other servers of a host, and from their own
        preprocessing.

        If this fails: look at which process is busy (top -H); on Ascend at TASK_QUEUE_ENABLE and
        at threads of the dispatcher that spin, on CPU at OpenMP's wait policy.
        """
        if not performance.sees_processes:
            judge.cannot_run("the server's processes cannot be seen from here")
        idle, busy = performance.cpu()
        judge(rules.judge_idle_cpu(idle, busy, self.model.thresholds.idle_cpu))

    @criterion("performance.regression")
    @_KINDS
    def test_no_slower_than_compared(
        self, kind: str, performance: PerformanceSession, vlm_run: Run, judge: Judge
    ) -> None:
        """Not slower than the endpoint that --vlm-compare-url names.

        TTFT and latency are at most 1.1 times its, both asked the same in turns.

        Serve the last release on another card of the same host and compare with it: a change of
        10 % shows, whatever else the host does meanwhile, because it falls on both alike.

        If this fails: bisect what differs between the two serve commands and versions.
        """
        url = vlm_run.options.compare_url
        if url is None:
            judge.not_applicable("no endpoint to compare with: --vlm-compare-url=URL")
        with contextlib.closing(performance.client_of(url)) as other:
            for what, ratio in performance.against(other, kind).items():
                judge(rules.judge_slowdown(what, ratio, self.model.thresholds.slowdown))

    @criterion("performance.limits")
    def test_limits_are_kept(
        self, performance: PerformanceSession, vlm_run: Run, judge: Judge
    ) -> None:
        """Every limit that the model file declares for this device is kept.

        A limit holds for the full checkpoint on the device that it names and nowhere else. On an
        NPU a model without one is an error: what nobody declared cannot be kept. So is a limit of a
        figure that cannot be measured. What the limits are about is measured here, where no other
        criterion has done so.

        If this fails: the worst figure comes first. Compare it with the figures of the last green
        report, taken on the same device with the same serve command.
        """
        options = vlm_run.options
        if options.checkpoint == "tiny":
            judge.not_applicable("limits are about the full checkpoint")
        device = vlm_run.platform.device()
        limits = [limit for limit in self.model.limits if limit.device in device]
        if not limits and options.platform != "npu":
            judge.not_applicable(f"no limit is declared for {device}")
        if not limits:
            raise PreconditionError(rules.undeclared(performance.all_metrics(), device))
        judge(rules.judge_limits(performance.metrics(limit.figure for limit in limits), limits))

    @criterion("performance.baseline")
    def test_no_slower_than_stored(
        self, performance: PerformanceSession, vlm_run: Run, judge: Judge
    ) -> None:
        """Not slower than stored runs of the same key.

        The key is the weights, the device, CANN, vLLM and vLLM-Ascend, the serve command and the
        requests; runs of different keys are never compared.

        Runs are stored in `performance/` with --vlm-save-performance; from the third on they are
        judged by, each typical figure (medians, means, throughputs) within 1.1 times, and beyond
        what one more run may scatter by how the stored ones do. All of them are measured here,
        where no other criterion has done so.

        If this fails: run again first, on a host that does nothing else. What stays slower came
        with something that the key does not show: the driver's clock settings, other cards' load.
        """
        stored = performance.stored_runs()
        if vlm_run.options.save_performance:
            judge.recorded(performance.save(stored))
            return
        if len(stored.runs) < STORED_RUNS:
            pytest.skip(
                f"{len(stored.runs)} of {STORED_RUNS} runs of this key are stored; store "
                "more with --vlm-save-performance"
            )
        bar = self.model.thresholds.slowdown
        judge(rules.judge_baseline(performance.all_metrics(), stored.runs, bar))


def judge_load(performance: PerformanceSession, judge: Judge, name: str, load: Load) -> None:
    """Judges whether a load was answered."""
    expectations = performance.expectations("text" if name == "text" else "image")
    judge(rules.judge_load(name, load, expectations))
