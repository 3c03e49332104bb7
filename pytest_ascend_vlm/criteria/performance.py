"""Rules of performance.*: speed and CPU usage. Noise of the host must not decide a verdict.

A declared limit applies only to the device that it names. Every other time is judged as a ratio of
two times measured in turns. The ratio has a 95 % interval of its median, which assumes no
distribution of the times.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import PreconditionError
from ..observation.answers import Completion
from ..observation.load import Load, Timing
from ..rounding import rounded
from ..spec.published import Limit
from ..spec.thresholds import ROUNDS, STORED_RUNS
from .agreement import compared
from .degeneration import degeneration
from .distribution import QUANTILES, Metric, distribution, median_bounds, samples_needed
from .text import similarity
from .verdict import Verdict, at_least, at_most

KINDS = ("text", "image")
LEVELS = (1, 2, 4, 8)
MEASUREMENTS = (
    *KINDS,
    "image.prefill",
    *(f"load.c{level}" for level in LEVELS),
    "load.ramp",
    "cpu",
)
"""The measurements that metrics come from. A run makes each at most once; criteria share it."""

WORKLOAD = "workload."
"""The measurement of a workload is this and the workload's name."""

_LOADS = r"(load\.(c[1248]|ramp)|workload\.[^.]+)"
TAILS = r"(mean|median|p90|p95|p99)"
FIGURE = re.compile(
    rf"(text|image|{_LOADS})\.((latency|ttft|tpot)\.{TAILS}|(user|decode)_throughput\.(mean|median)"
    r"|(output|request)_throughput|server_(ttft|latency|queue|prefill|decode)\.mean)"
    rf"|{_LOADS}\.itl\.{TAILS}|(load\.ramp|workload\.[^.]+)\.goodput"
    r"|image\.prefill\.median|cpu\.(mean|peak)"
)
"""The pattern of the names of metrics."""

PROPOSE_LIMITS = (
    "Store runs on the device with --vlm-save-performance; `ascend-vlm limits` then prints the "
    "limits to declare"
)
"""What to do for a model without limits."""

_SHOWN_ERRORS = 3
# One-sided 95 % quantiles of Student's t, by degrees of freedom; beyond 10 the normal quantile.
_T = dict(
    enumerate((6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812), start=1)
)
_NORMAL = 1.645


@dataclass(frozen=True)
class TimeRatio:
    """The median ratio of pairs of times, and the 95 % interval of that median.

    Attributes:
        low: the lower end of the interval.
        median: the median ratio.
        high: the upper end of the interval.
        pairs: the number of pairs.
    """

    low: float
    median: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}, {self.pairs} pairs)"


def median_ratio(pairs: Sequence[tuple[float, float]]) -> TimeRatio:
    """The median of a / b over pairs (a, b) that were measured in turns."""
    ratios = [a / b for a, b in pairs]
    low, high = median_bounds(ratios)
    return TimeRatio(low, statistics.median(ratios), high, len(ratios))


def measurement_of(metric: str) -> str:
    """The measurement that a metric comes from: "load.c8" for "load.c8.ttft.median"."""
    if metric.startswith(WORKLOAD):
        return WORKLOAD + metric.removeprefix(WORKLOAD).partition(".")[0]
    return max((one for one in MEASUREMENTS if metric.startswith(f"{one}.")), key=len)


def metrics(name: str, load: Load) -> tuple[Metric, ...]:
    """The metrics of a load; empty if no request was answered."""
    if not load.timings:
        return ()
    of_times = [
        metric
        for quantity, values in series(load.timings).items()
        if values
        for metric in distribution(f"{name}.{quantity}", values)
    ]
    # The gaps of one answer depend on each other, so their statistics have no interval.
    gaps = [gap for timing in load.timings for gap in timing.itl_seconds]
    of_gaps = distribution(f"{name}.itl", gaps) if gaps else ()
    of_users = [
        metric
        for quantity, rates in _rates(load.timings).items()
        if rates
        for metric in distribution(f"{name}.{quantity}", rates, "tok/s")[:2]
    ]
    of_server = [
        Metric(f"{name}.server_{quantity}.mean", seconds, "s")
        for quantity, seconds in load.server_seconds.items()
    ]
    goodput = [] if load.goodput is None else [Metric(f"{name}.goodput", load.goodput, "req/s")]
    return (
        *of_times,
        *(replace(metric, low=None, high=None) for metric in of_gaps),
        *of_users,
        *of_server,
        Metric(f"{name}.output_throughput", load.output_throughput, "tok/s"),
        Metric(f"{name}.request_throughput", load.request_throughput, "req/s"),
        *goodput,
    )


def series(timings: Sequence[Timing]) -> dict[str, list[float]]:
    """Quantity -> its values in seconds, in the order of the requests."""
    return {
        "latency": [timing.seconds for timing in timings],
        "ttft": [timing.ttft_seconds for timing in timings],
        "tpot": [timing.tpot_seconds for timing in timings if timing.tpot_seconds is not None],
    }


def _rates(timings: Sequence[Timing]) -> dict[str, list[float]]:
    """Quantity -> the tokens per second that each user sees."""
    return {
        "user_throughput": [timing.output_tokens / timing.seconds for timing in timings],
        "decode_throughput": [1 / timing.tpot_seconds for timing in timings if timing.tpot_seconds],
    }


def metrics_evidence(measured: Iterable[Metric]) -> list[dict[str, Any]]:
    """Metrics in the form of the evidence."""
    return [asdict(metric) for metric in measured]


def ttft_evidence(points: Iterable[tuple[int, float]]) -> list[dict[str, float]]:
    """Pairs (image tokens, TTFT in seconds) in the form of the evidence."""
    return [{"image_tokens": tokens, "ttft_s": seconds} for tokens, seconds in points]


def series_evidence(timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """The raw values of each quantity in the form of the evidence."""
    named = series(timings).items()
    return [{"name": name, "unit": "s", "values": values} for name, values in named]


@dataclass(frozen=True)
class LoadExpectations:
    """Facts about the requests of a load that are known before it runs.

    Attributes:
        max_tokens: case id -> maximum number of tokens of the answer.
        image_tokens: case id -> number of tokens of the images; empty without images.
        references: case id -> the reference's answer, if there is one. If it has a loop, a loop
            in the served answer is excused.
        similarity: minimum character similarity (0..1) of an answer to the reference's.
        exact: True if each answer has its maximum number of tokens. What follows the end of an
            answer may be any text, so the text is not judged then.
    """

    max_tokens: Mapping[str, int]
    image_tokens: Mapping[str, int] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    similarity: float = 0.0
    exact: bool = False


def judge_load(name: str, load: Load, expectations: LoadExpectations) -> Verdict:
    """Every request of a load got an answer that is neither degenerate nor another one.

    Args:
        name: the name of the measurement, the first part of its metrics' names.
        load: the measured load.
        expectations: the expectations about its requests.

    Raises:
        PreconditionError: all were answered, but the server's own times are others.
    """
    problems = _problems(load, expectations)
    requests = len(load.timings) + len(load.errors)
    checked = f"; {compared(name, load)}" if requests and not problems else ""
    measured = metrics(name, load)
    shown = main_metrics(name, measured)
    return at_least(
        1 - len(problems) / requests if requests else 0.0,
        1.0,
        "rate",
        f"{requests - len(problems)} of {requests} requests got a valid answer: "
        f"{shown or 'no metric'}{checked}",
        tuple(problems[:_SHOWN_ERRORS]),
        {
            "generator": load.generator,
            "figures": metrics_evidence(measured),
            "series": series_evidence(load.timings),
            "output_tokens": [timing.output_tokens for timing in load.timings],
            "sweep": _sweep(load),
            "ttft_by_image_tokens": ttft_evidence(
                (tokens, timing.ttft_seconds)
                for timing in load.timings
                if (tokens := expectations.image_tokens.get(timing.case_id)) is not None
            ),
        },
    )


def main_metrics(name: str, measured: Iterable[Metric]) -> str:
    """The medians and throughputs of a measurement of that name, for a finding."""
    return ", ".join(
        f"{one.name.removeprefix(name + '.')} {rounded(one.value, 3)} {one.unit}"
        for one in measured
        if one.name.endswith(".median") or one.more_is_better
    )


def _sweep(load: Load) -> dict[str, float]:
    """The load's point in the concurrency sweep; empty for a ramp, the only load with a goodput."""
    if not load.timings or load.goodput is not None:
        return {}
    return {
        "concurrency": load.concurrency,
        "output_throughput_tok_s": load.output_throughput,
        "median_latency_s": statistics.median(timing.seconds for timing in load.timings),
    }


def require_answers(name: str, load: Load, expectations: LoadExpectations) -> None:
    """Checks that every request of a load got an answer that is neither degenerate nor another one.

    Raises:
        PreconditionError: a request failed, an answer is degenerate or another one, or no request
            was sent.
    """
    requests = len(load.timings) + len(load.errors)
    problems = _problems(load, expectations)
    if problems or not requests:
        judge = next((one for one in ("load", "workload") if name.startswith(f"{one}.")), None)
        raise PreconditionError(
            f"{name}: {len(problems)} of {requests} requests got no valid answer, so their speed "
            f"is not judged: {problems[0] if problems else 'no request was sent'}. "
            f"performance.{judge or 'single_stream'} judges the answers: make it pass first."
        )


def _problems(load: Load, expectations: LoadExpectations) -> list[str]:
    """One text for each request that failed, or whose answer is degenerate or another one."""
    wrong = [
        f"{timing.case_id}: {problem}: {timing.text[:80]!r}"
        for timing in load.timings
        if (problem := _problem(timing, expectations))
    ]
    return [*load.errors, *wrong]


def _problem(timing: Timing, expectations: LoadExpectations) -> str | None:
    maximum = expectations.max_tokens.get(timing.case_id)
    if expectations.exact:
        is_exact = timing.output_tokens == maximum
        return None if is_exact else f"{timing.output_tokens} tokens instead of {maximum}"
    cut_off = maximum is not None and timing.output_tokens >= maximum
    reference = expectations.references.get(timing.case_id)
    finish = "length" if cut_off else "stop"
    answer = Completion(
        timing.case_id, timing.text, None, finish, None, None, timing.seconds, timing.ttft_seconds
    )
    return degeneration(answer, reference) or _other_answer(timing, expectations)


def _other_answer(timing: Timing, expectations: LoadExpectations) -> str | None:
    """A text if an answer is not the reference's: the speed of wrong answers is not asked for."""
    reference = expectations.references.get(timing.case_id)
    if reference is None:
        return None
    found = similarity(reference, timing.text)
    if found >= expectations.similarity:
        return None
    whose = next(
        (
            f"it is the answer to {other}"
            for other, text in expectations.references.items()
            if similarity(text, timing.text) >= max(expectations.similarity, found)
        ),
        f"the reference answers {reference[:80]!r}",
    )
    return f"a wrong answer (similarity {found:.2f}); {whose}"


@dataclass(frozen=True)
class Prefill:
    """The time that an image adds before the first token.

    Attributes:
        ratio: TTFT of a prompt with an image divided by the TTFT of a text prompt of equal length.
        tokens: the length of both prompts.
        added: the median difference of the two TTFTs.
        by_size: (image tokens, TTFT in seconds) of the image in several sizes.
        requests: the requests of the pairs.
    """

    ratio: TimeRatio
    tokens: int
    added: Metric
    by_size: Sequence[tuple[int, float]]
    requests: Load


def judge_prefill(prefill: Prefill, threshold: float) -> Verdict:
    """Judges TTFT of an image prompt divided by TTFT of a text prompt of equal length.

    Raises:
        PreconditionError: the server's own times are others.
    """
    checked = compared("image.prefill", prefill.requests)
    name = f"TTFT of {prefill.tokens} tokens with an image divided by TTFT of as many text tokens"
    verdict = _lower_bound_at_most(prefill.ratio, threshold, name)
    more = {
        "figures": metrics_evidence([prefill.added]),
        "ttft_by_image_tokens": ttft_evidence(prefill.by_size),
    }
    reason = f"{verdict.reason}; {checked}"
    return replace(verdict, reason=reason, evidence={**verdict.evidence, **more})


def judge_slowdown(quantity: str, ratio: TimeRatio, threshold: float) -> Verdict:
    """Judges a quantity of this server divided by the same quantity of the compared endpoint."""
    return _lower_bound_at_most(
        ratio, threshold, f"{quantity} here divided by {quantity} at the compared endpoint"
    )


def _lower_bound_at_most(ratio: TimeRatio, threshold: float, name: str) -> Verdict:
    """Fails only if even the lower end of the interval exceeds the threshold."""
    return at_most(
        ratio.low,
        threshold,
        "x (lower end of the 95 % interval)",
        f"{name}: {ratio}",
        evidence={"ratio": asdict(ratio)},
    )


def judge_scaling(alone: Load, together: Load, threshold: float) -> Verdict:
    """Judges output throughput at high concurrency divided by throughput at concurrency 1."""
    if not alone.timings or not together.timings:
        return at_least(
            0.0, threshold, "x", "there is no throughput to compare: no request was answered"
        )
    ratio = together.output_throughput / alone.output_throughput
    return at_least(
        ratio,
        threshold,
        "x",
        f"{rounded(together.output_throughput, 3)} tok/s at concurrency {together.concurrency}, "
        f"{rounded(alone.output_throughput, 3)} tok/s at concurrency {alone.concurrency}",
    )


def judge_idle_cpu(idle: Sequence[float], busy: Sequence[float], threshold: float) -> Verdict:
    """Judges the mean CPU usage of an idle server divided by that of a busy one.

    Args:
        idle: CPU usage of its process tree in percent of the usable cores, sampled without
            requests.
        busy: the same, sampled while the server answers one request after another.
        threshold: the maximum of the quotient, 0..1.
    """
    mean = statistics.fmean(busy)
    return at_most(
        statistics.fmean(idle) / mean if mean else math.nan,
        threshold,
        "of the busy server's",
        f"CPU usage in percent of the cores: {statistics.fmean(idle):.3g} % idle, "
        f"{mean:.3g} % busy (peak {max(busy):.3g} %)",
        evidence={
            "figures": metrics_evidence(cpu_metrics(busy)),
            "series": [{"name": "cpu", "unit": "%", "values": [*busy]}],
        },
    )


def cpu_metrics(busy: Sequence[float]) -> tuple[Metric, ...]:
    """The CPU metrics of a busy server, from samples in percent of the usable cores."""
    return (
        Metric("cpu.mean", statistics.fmean(busy), "%"),
        Metric("cpu.peak", max(busy), "%"),
    )


def kind_of(measurement: str) -> str:
    """The kind of request that a measurement sends: "text" or "image"."""
    return "text" if measurement == "text" else "image"


def require_metric(measured: Mapping[str, Metric], name: str) -> Metric:
    """The metric of that name.

    Raises:
        PreconditionError: the metric was not measured; the message says why.
    """
    if name in measured:
        return measured[name]
    raise PreconditionError(f"{name} could not be measured: {_why_not_measured(name)}.")


def _why_not_measured(metric: str) -> str:
    statistic = metric.rpartition(".")[2]
    if statistic in QUANTILES and statistic != "median":
        needed = samples_needed(QUANTILES[statistic])
        return (
            f"{statistic} needs at least {needed} requests. For load.* set --vlm-requests="
            f"{needed}; a workload sends as many as it declares; text.* and image.* always send "
            f"{ROUNDS}, so declare a limit of the median"
        )
    if ".server_" in metric:
        return (
            "the server's /metrics page does not have it. vLLM's has it; a proxy in between may "
            "hide the page"
        )
    if ".tpot." in metric or ".itl." in metric:
        return "no answer had a second token. Use cases with longer answers"
    if metric.startswith(WORKLOAD) and metric.endswith(".goodput"):
        return "the workload declares no service level. Add goodput={'ttft': 500, 'tpot': 50}"
    return "docs/performance.md lists no metric of that name"


def judge_limits(measured: Mapping[str, Metric], limits: Sequence[Limit]) -> Verdict:
    """Judges every declared limit; the verdict has the worst one.

    Args:
        measured: name -> every measured metric.
        limits: the limits for this device, at least one.

    Raises:
        PreconditionError: the metric of a limit was not measured.
    """
    lines, shares = [], []
    for limit in limits:
        metric = require_metric(measured, limit.metric)
        ratio = metric.value / limit.value
        shares.append(1 / ratio if metric.more_is_better else ratio)
        sense = "at least" if metric.more_is_better else "at most"
        lines.append(f"{metric.name}: {metric.value:.4g} {metric.unit}, {sense} {limit.value:g}")
    order = sorted(range(len(limits)), key=lambda index: -shares[index])
    kept = sum(1 for share in shares if share <= 1)
    return at_most(
        shares[order[0]],
        1.0,
        "of the limit, the worst one",
        f"{kept} of {len(limits)} limits are kept",
        tuple(lines[index] for index in order),
        {"limits": [{"text": lines[index], "share": shares[index]} for index in order]},
    )


def proposed_limits(
    runs: Sequence[Mapping[str, float]], device: str, margin: float
) -> tuple[Limit, ...]:
    """Limits that stored runs keep: the slowest run of each main metric, with a margin.

    Args:
        runs: each stored run, name -> value; at least one.
        device: the device of the runs.
        margin: share of the slowest run that is added to a time and taken from a throughput,
            0 to 1.
    """
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    return tuple(
        Limit(name, _limit(name, [run[name] for run in runs], margin), device)
        for name in shared
        if name.endswith((*_LIMITED_TIMES, *_LIMITED_RATES))
    )


_LIMITED_TIMES = (".latency.median", ".ttft.median", ".tpot.median")
_LIMITED_RATES = (".output_throughput", ".goodput")


def _limit(name: str, values: Sequence[float], margin: float) -> float:
    is_rate = name.endswith(_LIMITED_RATES)
    exact = min(values) * (1 - margin) if is_rate else max(values) * (1 + margin)
    rounded = float(f"{exact:.3g}")
    # A limit of exactly 1 looks like a placeholder.
    return rounded if rounded != 1 else (0.999 if is_rate else 1.01)


def judge_baseline(
    measured: Mapping[str, Metric], runs: Sequence[Mapping[str, float]], threshold: float
) -> Verdict:
    """Judges every metric against stored runs of the same key; the verdict has the worst one.

    A metric is slower if the lower bound of its slowdown exceeds the threshold. The bound is a
    one-sided 95 % prediction bound: it allows for the scatter of one more run, estimated from the
    logarithms of the stored values.

    Args:
        measured: name -> every measured metric.
        runs: each stored run, name -> value; at least `STORED_RUNS` runs.
        threshold: maximum slowdown, 1.1 for ten percent.

    Raises:
        PreconditionError: no metric can be compared.
    """
    bounds = dict(_slowdowns(measured, runs))
    if not bounds:
        raise PreconditionError(
            f"fewer than {STORED_RUNS} stored runs have the metrics measured here. Store new runs "
            "with --vlm-save-performance."
        )
    order = sorted(bounds, key=lambda name: -bounds[name])
    lines = tuple(
        f"{name}: {measured[name].value:.4g} {measured[name].unit}, "
        f"stored {', '.join(f'{run[name]:.4g}' for run in runs if name in run)}; "
        f"at least {bounds[name]:.3g} x slower"
        for name in order
    )
    slower = sum(1 for bound in bounds.values() if bound > threshold)
    return at_most(
        bounds[order[0]],
        threshold,
        "x slower (lower 95 % bound), the worst one",
        f"{slower} of {len(bounds)} metrics are slower than in {len(runs)} stored runs",
        lines,
        {"slower_at_least": bounds},
    )


def _slowdowns(
    measured: Mapping[str, Metric], runs: Sequence[Mapping[str, float]]
) -> Iterator[tuple[str, float]]:
    """Yields the name and the lower bound of the slowdown of each metric that can be compared."""
    for name, metric in measured.items():
        stored = [math.log(run[name]) for run in runs if run.get(name, 0) > 0]
        if not metric.is_typical or metric.value <= 0 or len(stored) < STORED_RUNS:
            continue
        change = math.log(metric.value) - statistics.fmean(stored)
        quantile = _T.get(len(stored) - 1, _NORMAL)
        scatter = quantile * statistics.stdev(stored) * math.sqrt(1 + 1 / len(stored))
        yield name, math.exp((-change if metric.more_is_better else change) - scatter)
