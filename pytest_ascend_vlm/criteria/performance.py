"""Rules of performance.*: speed and CPU usage. Noise of the host must not decide a verdict.

A time is judged as a ratio of two times measured in turns. The ratio has a 95 % interval of its
median, which assumes no distribution of the times.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import PreconditionError
from ..observation.answers import Completion
from ..observation.load import Load, Timing
from ..rounding import rounded
from .agreement import compared
from .degeneration import degeneration
from .distribution import Metric, distribution, median_bounds
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

_SHOWN_ERRORS = 3


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
