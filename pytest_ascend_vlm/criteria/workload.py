"""Rule of performance.workload: a load under stated conditions is answered, and its statistics."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ..observation.load import Load
from ..spec.workload import Workload
from .distribution import cannot_tell
from .performance import WORKLOAD, LoadExpectations, judge_load
from .verdict import Verdict


@dataclass(frozen=True)
class Conditions:
    """The conditions under which a workload was measured; None for what does not apply.

    Attributes:
        requests: number of requests, without the warm-up.
        warmups: number of requests before them, which are not measured.
        concurrency: maximum number of requests at a time.
        request_rate: mean number of requests per second.
        input_tokens: mean number of tokens of the text prompts.
        image_tokens: number of image tokens of a page.
        output_tokens: mean number of tokens of an answer.
        dtype: the dtype that the server was started with; None if it is not known.
        tool: what measured an offline engine, "vllm bench latency 0.32.0"; None for a server.
    """

    requests: int
    warmups: int
    concurrency: int | None
    request_rate: float | None
    input_tokens: float | None
    image_tokens: int | None
    output_tokens: float | None
    dtype: str | None
    tool: str | None = None


def judge_workload(
    workload: Workload, load: Load, expectations: LoadExpectations, warmups: int, dtype: str | None
) -> Verdict:
    """Every request of a workload got an answer with the stated number of tokens.

    Args:
        workload: the workload.
        load: the measured load.
        expectations: the number of tokens of each answer and image.
        warmups: number of requests before the load.
        dtype: the dtype that the server was started with; None if it is not known.
    """
    verdict = judge_load(f"{WORKLOAD}{workload.name}", load, expectations)
    more = {
        "conditions": asdict(_conditions(workload, load, expectations, warmups, dtype)),
        "untold": untold(len(load.timings)),
        "sweep": {},
    }
    return replace(verdict, evidence={**verdict.evidence, **more})


def _conditions(
    workload: Workload, load: Load, expectations: LoadExpectations, warmups: int, dtype: str | None
) -> Conditions:
    texts = [
        timing.prompt_tokens
        for timing in load.timings
        if timing.prompt_tokens and timing.case_id not in expectations.image_tokens
    ]
    return Conditions(
        len(load.timings) + len(load.errors),
        warmups,
        workload.concurrency,
        workload.request_rate,
        mean(texts),
        next(iter(expectations.image_tokens.values()), None),
        mean([timing.output_tokens for timing in load.timings]),
        dtype,
    )


def untold(requests: int) -> str:
    """The quantiles that a number of requests cannot tell; empty if there is none."""
    missing = cannot_tell(requests)
    return f"{requests} requests cannot tell {missing}" if missing else ""


def mean(values: Sequence[int]) -> float | None:
    """The mean of numbers of tokens; None if there are none."""
    return statistics.fmean(values) if values else None
