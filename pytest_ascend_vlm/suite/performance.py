"""Criteria performance.*: latency, throughput and CPU usage meet their requirements."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from ..criteria import limits as limit_rules
from ..criteria import performance as rules
from ..criteria.criterion import LIMITS, WORKLOAD
from ..criteria.offline_load import judge_offline
from ..criteria.workload import judge_workload
from ..observation.load import Load, Timed
from ..session.judge import Judge
from ..session.offline_loads import warmup_batches
from ..session.run import Run
from ..spec.case import Capability
from ..spec.thresholds import STORED_RUNS, WARMUPS
from ..spec.workload import Workload
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..session.performance import PerformanceSession

_KINDS = pytest.mark.parametrize("kind", rules.KINDS)
_LEVELS = (*(f"c{level}" for level in rules.LEVELS), "ramp")


class PerformanceCriteria(Criteria):
    """Criteria of latency, throughput and CPU usage."""

    @criterion("performance.single_stream")
    @_KINDS
    def test_requests_one_at_a_time(
        self,
        kind: str,
        performance: PerformanceSession,
        benchmark_timings: Callable[[Sequence[Timed]], None],
        judge: Judge,
    ) -> None:
        """{rounds} streamed requests, one at a time, all get an answer.

        Latency, TTFT and TPOT are reported. Their means, medians and quantiles are the metrics for
        limits and stored runs. No request hits a cache: each has its own cache salt, and its image
        differs from all others in the last bits of one pixel. The latencies are passed to
        pytest-benchmark, so its JSON output and its comparisons work as usual.

        The means of TTFT, TPOT and latency are compared with the server's own, in `/metrics`. If
        they differ by more than the wire and {server_time_tolerance:.0%} explain, the result is an
        error, because the client's times are no figures of the server. The wire is what the client
        measures beyond the server for answers of one token. If the server has no `/metrics`, or
        other clients use it, the finding says that nothing was compared.

        If this fails: the first error in the message is the server's; its log has more. If an
        answer is degenerate, or not the reference's, its time means nothing: baseline.* says more.
        """
        load = performance.load(kind)
        benchmark_timings(load.timings)
        judge_load(performance, judge, kind, load)

    @criterion("performance.image_prefill", needs=Capability.IMAGE)
    def test_image_prefill_is_in_proportion(
        self, performance: PerformanceSession, judge: Judge
    ) -> None:
        """TTFT of an image prompt is at most {prefill_ratio} times that of an equally long text.

        {pairs} pairs of an image prompt and a text prompt are sent in turns, so the ratio shows the
        cost of preprocessing and vision encoder. The number of operations explains a ratio of about
        13 for a 0.7B encoder and a 0.5B decoder at 2,500 image tokens, and less for larger
        decoders. A far larger ratio means that the encoder runs without its kernels, or on the
        host. TTFT is compared with the server's own, as in performance.single_stream.

        If this fails: profile the encoder alone. On Ascend look for attention that falls back to an
        unfused kernel, for float32, and for image preprocessing in a single slow thread.
        """
        judge(rules.judge_prefill(performance.prefill(), self.model.thresholds.prefill_ratio))

    @criterion("performance.load", needs=Capability.IMAGE)
    @pytest.mark.parametrize("level", _LEVELS)
    def test_load_is_answered(
        self,
        level: str,
        performance: PerformanceSession,
        benchmark_timings: Callable[[Sequence[Timed]], None],
        judge: Judge,
    ) -> None:
        """Under load every request gets the answer that the reference gives.

        `vllm bench serve` sends page images that are in no cache, at concurrency 1, 2, 4 and 8.
        Then it sends a ramp: the request rate rises to the request throughput of the highest
        concurrency. No request may fail. Every answer passes the degeneration guard and is like the
        reference's, because a broken engine may be fast. (A near-tie may change an answer, so at
        least `Thresholds.similarity_after_tie` of its characters have to agree.) The goodput of the
        ramp counts answers whose TTFT and TPOT are at most {service_level} times those of a single
        request. The times are compared with the server's own, as in performance.single_stream. The
        wire counts once for each request that is sent at one time.

        If this fails: errors only under load usually come from memory (lower max_num_seqs or
        gpu_memory_utilization) or from a queue timeout. Degenerate or wrong answers only under load
        come from state that requests share: determinism.concurrent tells from what number on.
        """
        name = f"load.{level}"
        load = performance.load(name)
        benchmark_timings(load.timings)
        judge_load(performance, judge, name, load)

    @criterion(WORKLOAD)
    def test_workload_is_answered(
        self,
        workload: Workload,
        performance: PerformanceSession,
        benchmark_timings: Callable[[Sequence[Timed]], None],
        judge: Judge,
    ) -> None:
        """Every request of a workload that the model file declares gets an answer as stated.

        A document measures speed under a load of its own: lengths of prompt and answer, image
        tokens, requests at a time, request rate. `vllm bench serve` sends this load after {warmups}
        requests that are not measured. No request may fail, and each answer has exactly the stated
        number of tokens, so that its speed is that of the stated load. The report shows its
        statistics beside the published figures, and how their conditions differ.

        `vllm bench latency` and `vllm bench throughput` measure an offline engine with the serve
        arguments of the model file, while its server is stopped. The prompts are random tokens.

        If this fails: the first error in the message is the server's; its log has more. If an
        answer has too few tokens, the server does not support ignore_eos, or a limit of the server
        ends the answer: compare max_model_len.
        """
        if workload.is_offline:
            judge_offline_load(performance, judge, workload, benchmark_timings)
            return
        name = f"{rules.WORKLOAD}{workload.name}"
        load, expectations = performance.load(name), performance.expectations(name)
        benchmark_timings(load.timings)
        judge(judge_workload(workload, load, expectations, WARMUPS, performance.dtype))

    @criterion("performance.scaling", needs=Capability.IMAGE)
    def test_throughput_scales(self, performance: PerformanceSession, judge: Judge) -> None:
        """Throughput at concurrency 8 is at least {load_scaling} times that at concurrency 1.

        A server that processes requests one after another looks normal with a single client, and
        fails in production.

        If this fails: look for max_num_seqs=1, a lock in the image preprocessing, or a proxy with
        one worker.
        """
        levels = (1, max(rules.LEVELS))
        alone, together = (performance.answered_load(f"load.c{level}") for level in levels)
        judge(rules.judge_scaling(alone, together, self.model.thresholds.load_scaling))

    @criterion("performance.cpu_use", needs=Capability.IMAGE)
    def test_waiting_costs_little(self, performance: PerformanceSession, judge: Judge) -> None:
        """CPU usage of the idle server is at most {idle_cpu:.0%} of its CPU usage when busy.

        The busy server answers requests with page images, one after another. Mean and peak usage
        of its process tree are reported, in percent of the cores that the test process may use.
        Workers that poll take cores from other servers on the host, and from their own
        preprocessing.

        If this fails: find the busy process or thread (top -H). On Ascend check TASK_QUEUE_ENABLE
        and dispatcher threads that spin; on CPU check OpenMP's wait policy.
        """
        if not performance.sees_processes:
            judge.cannot_run("the server's processes are not visible from this host")
        idle, busy = performance.cpu()
        judge(rules.judge_idle_cpu(idle, busy, self.model.thresholds.idle_cpu))

    @criterion("performance.regression")
    @_KINDS
    def test_no_slower_than_compared(
        self, kind: str, performance: PerformanceSession, vlm_run: Run, judge: Judge
    ) -> None:
        """The server is not slower than the endpoint of --vlm-compare-url.

        Both get the same {pairs} requests in turns. TTFT and latency are at most {slowdown} times
        those of the compared endpoint. Serve the last release on another card of the same host and
        compare with it. Other work on the host slows both servers equally, so a change of 10 % is
        visible even on a busy host.

        If this fails: bisect the differences between the two serve commands and versions.
        """
        url = vlm_run.options.compare_url
        if url is None:
            judge.not_applicable("no endpoint to compare with: --vlm-compare-url=URL")
        with contextlib.closing(performance.client_of(url)) as other:
            for quantity, ratio in performance.against(other, kind).items():
                judge(rules.judge_slowdown(quantity, ratio, self.model.thresholds.slowdown))

    @criterion(LIMITS)
    def test_limits_are_kept(
        self, performance: PerformanceSession, vlm_run: Run, judge: Judge
    ) -> None:
        """Every limit that the model file declares for this device is met.

        A limit applies only to the full checkpoint on the device that it names. A model without a
        limit for the device is not judged: `ascend-vlm limits` proposes limits from stored runs. A
        limit of a metric that cannot be measured is an error. Metrics that no other criterion has
        measured are measured here.

        If this fails: the message lists the worst metric first. Compare it with the metrics of the
        last passing report from the same device with the same serve command.
        """
        options = vlm_run.options
        if options.checkpoint == "tiny":
            judge.not_applicable("limits apply only to the full checkpoint")
        device = vlm_run.platform.device()
        limits = [limit for limit in self.model.limits if limit.device in device]
        if not limits:
            judge.not_applicable(f"no limit is declared for {device}. {limit_rules.PROPOSE_LIMITS}")
        measured = performance.metrics(limit.metric for limit in limits)
        judge(limit_rules.judge_limits(measured, limits))

    @criterion("performance.baseline")
    def test_no_slower_than_stored(
        self, performance: PerformanceSession, vlm_run: Run, judge: Judge
    ) -> None:
        """The server is not slower than in stored runs of the same key.

        The key consists of weights, device, versions of CANN, vLLM and vLLM-Ascend, serve command
        and requests. Runs of different keys are never compared. --vlm-save-performance stores runs
        in `performance/`; the criterion needs {stored_runs} of them.

        Judged are medians, means and throughputs. A metric fails if it is more than {slowdown}
        times slower, even after the scatter of the stored runs is allowed for. Metrics that no
        other criterion has measured are measured here.

        If this fails: first run again on a host without other load. If the slowdown remains, its
        cause is not in the key: clock settings of the driver, or load on other cards.
        """
        stored = performance.stored_runs()
        if vlm_run.options.save_performance:
            judge.recorded(performance.save(stored))
            return
        if len(stored.runs) < STORED_RUNS:
            judge.cannot_run(
                f"{len(stored.runs)} of {STORED_RUNS} runs of this key are stored; store more with "
                "--vlm-save-performance"
            )
        threshold = self.model.thresholds.slowdown
        judge(limit_rules.judge_baseline(performance.all_metrics(), stored.runs, threshold))


def judge_load(performance: PerformanceSession, judge: Judge, name: str, load: Load) -> None:
    """Judges the answers of a load."""
    judge(rules.judge_load(name, load, performance.expectations(name)))


def judge_offline_load(
    performance: PerformanceSession,
    judge: Judge,
    workload: Workload,
    benchmark_timings: Callable[[Sequence[Timed]], None],
) -> None:
    """Judges the answers of an offline engine."""
    if not performance.sees_processes:
        judge.cannot_run("the suite did not start the server, so it cannot start an engine there")
    load = performance.offline(workload)
    benchmark_timings(load.batches)
    warmups = warmup_batches(workload) * workload.batch
    judge(judge_offline(workload, load, warmups, performance.dtype))
