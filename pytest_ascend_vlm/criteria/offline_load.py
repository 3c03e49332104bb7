"""Rule of performance.workload for an offline engine: its batches are answered, their figures."""

from __future__ import annotations

import re
from dataclasses import asdict

from ..errors import PreconditionError
from ..observation.offline_load import OfflineLoad
from ..spec.workload import Workload
from .distribution import Metric, cannot_tell, distribution
from .performance import TAILS, WORKLOAD, main_metrics, metrics_evidence
from .verdict import Verdict, at_least
from .workload import Conditions, mean

STATISTICS = {
    "latency": re.compile(rf"latency\.{TAILS}"),
    "throughput": re.compile(r"(request|output|total)_throughput"),
}
"""Tool -> the pattern of the statistics that it measures."""

_SHOWN = 3


def metrics(workload: Workload, load: OfflineLoad) -> tuple[Metric, ...]:
    """The metrics of a workload: the times of its batches, or the throughputs of its only batch."""
    name = f"{WORKLOAD}{workload.name}"
    if workload.tool == "latency":
        return distribution(f"{name}.latency", [batch.seconds for batch in load.batches])
    (batch,) = load.batches
    answers, prompts = sum(batch.output_tokens), sum(batch.input_tokens)
    return (
        Metric(f"{name}.request_throughput", load.requests / batch.seconds, "req/s"),
        Metric(f"{name}.output_throughput", answers / batch.seconds, "tok/s"),
        Metric(f"{name}.total_throughput", (prompts + answers) / batch.seconds, "tok/s"),
    )


def judge_offline(
    workload: Workload, load: OfflineLoad, warmups: int, dtype: str | None
) -> Verdict:
    """Every request of the measured batches got an answer with the stated number of tokens.

    Args:
        workload: the workload.
        load: what the tool measured.
        warmups: number of requests before the measured ones.
        dtype: the dtype that the engine was started with; None if it is not known.
    """
    problems, measured = _problems(workload, load), metrics(workload, load)
    shown = main_metrics(f"{WORKLOAD}{workload.name}", measured)
    valid = workload.requests - len(problems)
    return at_least(
        valid / workload.requests,
        1.0,
        "rate",
        f"{valid} of {workload.requests} requests got a valid answer: {shown}",
        tuple(problems[:_SHOWN]),
        {
            "generator": load.generator,
            "command": load.command,
            "figures": metrics_evidence(measured),
            "series": [
                {"name": "latency", "unit": "s", "values": [one.seconds for one in load.batches]}
            ],
            "output_tokens": [sum(batch.output_tokens) for batch in load.batches],
            "conditions": asdict(_conditions(workload, load, warmups, dtype)),
            "untold": _untold(len(load.batches)) if workload.tool == "latency" else "",
        },
    )


def require_answers(workload: Workload, load: OfflineLoad) -> None:
    """Checks that every request got an answer with the stated number of tokens.

    Raises:
        PreconditionError: an answer has another number of tokens, or is missing.
    """
    if problems := _problems(workload, load):
        raise PreconditionError(
            f"{WORKLOAD}{workload.name}: {len(problems)} of {workload.requests} requests got no "
            f"valid answer, so their speed is not judged: {problems[0]}. performance.workload "
            "judges the answers: make it pass first."
        )


def _problems(workload: Workload, load: OfflineLoad) -> list[str]:
    """One text for each request without an answer of the stated number of tokens."""
    counts = [tokens for batch in load.batches for tokens in batch.output_tokens]
    wrong = [
        f"request {number}: {tokens} tokens instead of {workload.output_tokens}"
        for number, tokens in enumerate(counts, 1)
        if tokens != workload.output_tokens
    ]
    missing = range(len(counts) + 1, workload.requests + 1)
    return [*wrong, *(f"request {number}: no answer" for number in missing)]


def _conditions(
    workload: Workload, load: OfflineLoad, warmups: int, dtype: str | None
) -> Conditions:
    return Conditions(
        load.requests,
        warmups,
        workload.concurrency,
        None,
        mean([tokens for batch in load.batches for tokens in batch.input_tokens]),
        None,
        mean([tokens for batch in load.batches for tokens in batch.output_tokens]),
        dtype,
        load.generator,
    )


def _untold(batches: int) -> str:
    """The quantiles that a number of batches cannot tell; empty if there is none."""
    missing = cannot_tell(batches)
    return f"{batches} batches cannot tell {missing}" if missing else ""
