"""How fast is it, told so that a noisy host does not decide?

Absolute bars hold on the device that they name. Everything else is a ratio of two things measured
in turns, told with a 95 % interval of its median that assumes nothing about how times scatter.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import PreconditionError
from ..observation.answers import Completion
from ..observation.load import Load, Timing
from ..spec.published import Limit
from ..spec.thresholds import STORED_RUNS
from .degeneration import degeneration
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
"""What figures come from; each is measured once, whoever asks first."""

FIGURE = re.compile(
    r"(text|image|load\.(c[1248]|ramp))\.(latency|ttft|tpot)\.(mean|median|p90|p99)"
    r"|(text|image|load\.(c[1248]|ramp))\.((output|request)_throughput|server_(queue|prefill|decode)\.mean)"
    r"|load\.ramp\.goodput|image\.prefill\.median|cpu\.(mean|peak)"
)
"""The names that figures have."""

_CONFIDENCE = 0.95
_P99_SAMPLES = 299  # 1 - 0.99 ** 299 >= 0.95: with fewer, the largest may still be below p99
_SHOWN_ERRORS = 3
# One-sided 95 % quantiles of Student's t, by degrees of freedom; then the normal one.
_T = dict(
    enumerate((6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812), start=1)
)
_NORMAL = 1.645


@dataclass(frozen=True)
class Metric:
    """One measured figure.

    Attributes:
        name: `<what>.<quantity>.<statistic>`: "image.ttft.median", "load.c8.output_throughput".
        value: the number.
        unit: "s", "tok/s", "req/s", "%", "MiB".
    """

    name: str
    value: float
    unit: str

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate of work done."""
        return self.unit in {"tok/s", "req/s"}

    @property
    def is_typical(self) -> bool:
        """Whether it is about the usual request; tails scatter too much to compare two runs by."""
        return self.more_is_better or self.name.endswith((".median", ".mean"))


@dataclass(frozen=True)
class TimeRatio:
    """The median ratio of n pairs, and the 95 % interval of that median.

    Attributes:
        low: the interval's lower end.
        median: the ratio.
        high: its upper end.
        pairs: n.
    """

    low: float
    median: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}, {self.pairs} pairs)"


def median_ratio(pairs: Sequence[tuple[float, float]]) -> TimeRatio:
    """The median of a / b over pairs (a, b) that were measured in turns.

    The interval is between two of the sorted ratios (the sign test's), so one slow moment of the
    host moves it no further than any other. With fewer than 6 pairs it is unbounded.
    """
    ratios = sorted(a / b for a, b in pairs)
    count = len(ratios)
    outside, rank = 0.5**count, 0
    # The chance that fewer than `rank` of the ratios are below the true median, on either side.
    while 2 * outside <= 1 - _CONFIDENCE:
        rank += 1
        outside += math.comb(count, rank) * 0.5**count
    low, high = (ratios[rank - 1], ratios[-rank]) if rank else (0.0, math.inf)
    return TimeRatio(low, statistics.median(ratios), high, count)


def measurement_of(figure: str) -> str:
    """The measurement that a figure comes from: "load.c8" of "load.c8.ttft.median"."""
    return max((one for one in MEASUREMENTS if figure.startswith(f"{one}.")), key=len)


def distribution(name: str, values: Sequence[float]) -> tuple[Metric, ...]:
    """Mean, median and tail of times in seconds: p90, and p99 from 299 values on."""
    percents = (90, 99) if len(values) >= _P99_SAMPLES else (90,)
    return (
        Metric(f"{name}.mean", statistics.fmean(values), "s"),
        Metric(f"{name}.median", statistics.median(values), "s"),
        *(Metric(f"{name}.p{p}", float(np.percentile(values, p)), "s") for p in percents),
    )


def metrics(name: str, load: Load) -> tuple[Metric, ...]:
    """The figures of a load; none where nothing was answered."""
    if not load.timings:
        return ()
    of_times = [
        measured
        for quantity, values in series(load.timings).items()
        if values
        for measured in distribution(f"{name}.{quantity}", values)
    ]
    of_server = [
        Metric(f"{name}.server_{quantity}.mean", seconds, "s")
        for quantity, seconds in load.server_seconds.items()
    ]
    goodput = [] if load.goodput is None else [Metric(f"{name}.goodput", load.goodput, "req/s")]
    return (
        *of_times,
        *of_server,
        Metric(f"{name}.output_throughput", load.output_throughput, "tok/s"),
        Metric(f"{name}.request_throughput", load.request_throughput, "req/s"),
        *goodput,
    )


def series(timings: Sequence[Timing]) -> dict[str, list[float]]:
    """Quantity -> its values, in seconds, in the order of the requests."""
    return {
        "latency": [timing.seconds for timing in timings],
        "ttft": [timing.ttft_seconds for timing in timings],
        "tpot": [timing.tpot_seconds for timing in timings if timing.tpot_seconds is not None],
    }


def metrics_evidence(measured: Iterable[Metric]) -> list[dict[str, Any]]:
    """Figures, as evidence has them."""
    return [asdict(figure) for figure in measured]


def ttft_evidence(points: Iterable[tuple[int, float]]) -> list[dict[str, float]]:
    """(image tokens, TTFT in seconds), as evidence has them."""
    return [{"image_tokens": tokens, "ttft_s": seconds} for tokens, seconds in points]


def series_evidence(timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """The raw series, as evidence has them."""
    named = series(timings).items()
    return [{"name": name, "unit": "s", "values": values} for name, values in named]


@dataclass(frozen=True)
class LoadExpectations:
    """What is known beforehand about the requests of a load.

    Attributes:
        max_tokens: case id -> most tokens of its answer.
        image_tokens: case id -> tokens of its images; empty where there are none.
        references: case id -> the reference's answer, where there is one; its own loops are
            excused.
    """

    max_tokens: Mapping[str, int]
    image_tokens: Mapping[str, int] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)


def judge_load(name: str, load: Load, expectations: LoadExpectations) -> Verdict:
    """Every request of a load was answered, and by an answer: garbage is not throughput.

    Args:
        name: what the figures are called.
        load: what was seen.
        expectations: what is known about its requests.
    """
    problems = _problems(load, expectations)
    asked = len(load.timings) + len(load.errors)
    found = metrics(name, load)
    medians = [f for f in found if f.name.endswith(".median") or f.more_is_better]
    words = ", ".join(f"{f.name.removeprefix(name + '.')} {f.value:.3g} {f.unit}" for f in medians)
    return at_least(
        1 - len(problems) / asked if asked else 0.0,
        1.0,
        "rate",
        f"{asked - len(problems)} of {asked} requests were answered: {words or 'nothing'}",
        tuple(problems[:_SHOWN_ERRORS]),
        {
            "generator": load.generator,
            "figures": metrics_evidence(found),
            "series": series_evidence(load.timings),
            "sweep": _sweep(load),
            "ttft_by_image_tokens": ttft_evidence(
                (tokens, timing.ttft_seconds)
                for timing in load.timings
                if (tokens := expectations.image_tokens.get(timing.case_id)) is not None
            ),
        },
    )


def _sweep(load: Load) -> dict[str, float]:
    """A point of the concurrency sweep; a ramp, which alone has a goodput, is none."""
    if not load.timings or load.goodput is not None:
        return {}
    return {
        "concurrency": load.concurrency,
        "output_throughput_tok_s": load.output_throughput,
        "median_latency_s": statistics.median(timing.seconds for timing in load.timings),
    }


def require_answers(name: str, load: Load, expectations: LoadExpectations) -> None:
    """Raises PreconditionError unless every request of a load was answered, and by an answer."""
    asked = len(load.timings) + len(load.errors)
    problems = _problems(load, expectations)
    if problems or not asked:
        judge = "load" if name.startswith("load.") else "single_stream"
        raise PreconditionError(
            f"{name}: {len(problems)} of {asked} requests were not answered, so how fast they were "
            f"is not judged: {problems[0] if problems else 'nothing was asked'}. "
            f"performance.{judge} judges the answers: see that it holds first."
        )


def _problems(load: Load, expectations: LoadExpectations) -> list[str]:
    """What is wrong with the requests of a load, one text each."""
    garbage = [
        f"{timing.case_id}: {problem}: {timing.text[:80]!r}"
        for timing in load.timings
        if (problem := _problem(timing, expectations))
    ]
    return [*load.errors, *garbage]


def _problem(timing: Timing, expectations: LoadExpectations) -> str | None:
    most = expectations.max_tokens.get(timing.case_id)
    cut_off = most is not None and timing.output_tokens >= most
    reference = expectations.references.get(timing.case_id)
    finish = "length" if cut_off else "stop"
    answer = Completion(
        timing.case_id, timing.text, None, finish, None, None, timing.seconds, timing.ttft_seconds
    )
    return degeneration(answer, reference)


@dataclass(frozen=True)
class Prefill:
    """What an image costs before the first token.

    Attributes:
        ratio: TTFT with an image over that of a text of as many tokens.
        tokens: that many.
        added: the median difference of the two.
        by_size: (image tokens, TTFT in seconds) of the image in several sizes.
    """

    ratio: TimeRatio
    tokens: int
    added: Metric
    by_size: Sequence[tuple[int, float]]


def judge_prefill(prefill: Prefill, threshold: float) -> Verdict:
    """An image prompt's TTFT against that of a text of as many tokens."""
    what = f"TTFT of {prefill.tokens} tokens with an image over that of text"
    verdict = _lower_bound_at_most(prefill.ratio, threshold, what)
    more = {
        "figures": metrics_evidence([prefill.added]),
        "ttft_by_image_tokens": ttft_evidence(prefill.by_size),
    }
    return replace(verdict, evidence={**verdict.evidence, **more})


def judge_slowdown(what: str, ratio: TimeRatio, tolerance: float) -> Verdict:
    """A quantity here against the same quantity at the endpoint that it is compared with."""
    return _lower_bound_at_most(
        ratio, tolerance, f"{what} here over that of the endpoint compared with"
    )


def _lower_bound_at_most(ratio: TimeRatio, threshold: float, what: str) -> Verdict:
    """Fails where even the lower end of the interval is beyond the bar."""
    return at_most(
        ratio.low,
        threshold,
        "x (lower end of the 95 % interval)",
        f"{what}: {ratio}",
        evidence={"ratio": asdict(ratio)},
    )


def judge_scaling(alone: Load, together: Load, threshold: float) -> Verdict:
    """Output throughput of many requests at a time over that of one at a time."""
    if not alone.timings or not together.timings:
        return at_least(
            0.0, threshold, "x", "there is no throughput to compare: nothing was answered"
        )
    ratio = together.output_throughput / alone.output_throughput
    return at_least(
        ratio,
        threshold,
        "x",
        f"{together.output_throughput:.3g} tok/s with {together.concurrency} requests at a time, "
        f"{alone.output_throughput:.3g} tok/s with {alone.concurrency}",
    )


def judge_idle_cpu(idle: Sequence[float], busy: Sequence[float], threshold: float) -> Verdict:
    """Mean CPU use of a server that waits over that of one that answers.

    Args:
        idle: CPU use of its process tree in percent of the usable cores, sampled while it waits.
        busy: the same while it answers one request after another.
        threshold: the largest share.
    """
    mean = statistics.fmean(busy)
    return at_most(
        statistics.fmean(idle) / mean if mean else math.nan,
        threshold,
        "of the busy server's",
        f"{statistics.fmean(idle):.3g} % of the cores while waiting, {mean:.3g} % while answering, "
        f"{max(busy):.3g} % at most",
        evidence={
            "figures": metrics_evidence(cpu_metrics(busy)),
            "series": [{"name": "cpu", "unit": "%", "values": [*busy]}],
        },
    )


def cpu_metrics(busy: Sequence[float]) -> tuple[Metric, ...]:
    """The figures of a server that answers, from samples in percent of the usable cores."""
    return (
        Metric("cpu.mean", statistics.fmean(busy), "%"),
        Metric("cpu.peak", max(busy), "%"),
    )


def undeclared(found: Mapping[str, Metric], device: str) -> str:
    """What to do where a model declares no limit for a device."""
    measured = ", ".join(f"{one.name} {one.value:.4g} {one.unit}" for one in found.values())
    return (
        f"the model file declares no limit for {device}, so there is nothing it has to reach. "
        "Declare what it must with ModelSpec(limits=(Limit(figure, value, device), ...)). Metric "
        f"here: {measured}."
    )


def kind_of(measurement: str) -> str:
    """The kind of request that a measurement sends."""
    return "text" if measurement == "text" else "image"


def require_metric(found: Mapping[str, Metric], name: str) -> Metric:
    """A figure of a measurement.

    Raises:
        PreconditionError: the measurement did not give it; says why.
    """
    if name in found:
        return found[name]
    raise PreconditionError(f"{name} could not be measured: {_why_not_measured(name)}.")


def _why_not_measured(figure: str) -> str:
    if figure.endswith(".p99"):
        return (
            f"p99 is told from {_P99_SAMPLES} requests on. Under load --vlm-requests="
            f"{_P99_SAMPLES} sends as many; one at a time fewer are sent: declare a limit of p90"
        )
    if ".server_" in figure:
        return "the server's /metrics do not tell it. vLLM does; a proxy in between may not"
    if ".tpot." in figure:
        return "no answer had a second token. Ask for longer answers"
    return "it is none of the figures in docs/performance.md"


def judge_limits(found: Mapping[str, Metric], limits: Sequence[Limit]) -> Verdict:
    """Every declared limit against what was measured; the worst one is the verdict's.

    Args:
        found: every figure that was measured, by name.
        limits: those of this device, at least one.

    Raises:
        PreconditionError: a limit is about a figure that was not measured.
    """
    lines, shares = [], []
    for limit in limits:
        figure = require_metric(found, limit.figure)
        ratio = figure.value / limit.value
        shares.append(1 / ratio if figure.more_is_better else ratio)
        sense = "at least" if figure.more_is_better else "at most"
        lines.append(f"{figure.name}: {figure.value:.4g} {figure.unit}, {sense} {limit.value:g}")
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


def judge_baseline(
    found: Mapping[str, Metric], runs: Sequence[Mapping[str, float]], tolerance: float
) -> Verdict:
    """Today's figures against those of stored runs of the same key; the worst is the verdict's.

    A figure regressed where it is beyond the tolerance even after what one more run may scatter,
    by how the stored runs do (a one-sided 95 % prediction bound of the logarithm).

    Args:
        found: every figure that was measured, by name.
        runs: name -> value of at least `STORED_RUNS` stored runs.
        tolerance: largest slowdown, 1.1 for ten percent.

    Raises:
        PreconditionError: no figure can be compared.
    """
    bounds = dict(_slowdowns(found, runs))
    if not bounds:
        raise PreconditionError(
            f"of the figures measured here fewer than {STORED_RUNS} runs are stored. Store runs "
            "anew with --vlm-save-performance."
        )
    order = sorted(bounds, key=lambda name: -bounds[name])
    lines = tuple(
        f"{name}: {found[name].value:.4g} {found[name].unit}, "
        f"stored {', '.join(f'{run[name]:.4g}' for run in runs if name in run)}; "
        f"slower by {bounds[name]:.3g} x at least"
        for name in order
    )
    slower = sum(1 for bound in bounds.values() if bound > tolerance)
    return at_most(
        bounds[order[0]],
        tolerance,
        "x slower (lower 95 % bound), the worst one",
        f"{slower} of {len(bounds)} figures are slower than in {len(runs)} stored runs",
        lines,
        {"slower_at_least": bounds},
    )


def _slowdowns(
    found: Mapping[str, Metric], runs: Sequence[Mapping[str, float]]
) -> Iterator[tuple[str, float]]:
    """Name -> lower bound of the slowdown, of each figure that two runs can be compared by."""
    for name, figure in found.items():
        stored = [math.log(run[name]) for run in runs if run.get(name, 0) > 0]
        if not figure.is_typical or figure.value <= 0 or len(stored) < STORED_RUNS:
            continue
        change = math.log(figure.value) - statistics.fmean(stored)
        quantile = _T.get(len(stored) - 1, _NORMAL)
        scatter = quantile * statistics.stdev(stored) * math.sqrt(1 + 1 / len(stored))
        yield name, math.exp((-change if figure.more_is_better else change) - scatter)
