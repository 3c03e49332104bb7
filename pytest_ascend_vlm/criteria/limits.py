"""Rules of performance.limits and performance.baseline: metrics against stated values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from ..errors import PreconditionError
from ..spec.published import Limit
from ..spec.thresholds import ROUNDS, STORED_RUNS
from .distribution import QUANTILES, Metric, samples_needed
from .performance import WORKLOAD
from .verdict import Verdict, at_most

PROPOSE_LIMITS = (
    "Store runs on the device with --vlm-save-performance; `ascend-vlm limits` then prints the "
    "limits to declare"
)
"""What to do for a model without limits."""

_LIMITED_TIMES = (".latency.median", ".ttft.median", ".tpot.median")
_LIMITED_RATES = (".output_throughput", ".goodput")
# One-sided 95 % quantiles of Student's t, by degrees of freedom; beyond 10 the normal quantile.
_T = dict(
    enumerate((6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812), start=1)
)
_NORMAL = 1.645


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
