"""Puts a served model under load with an existing load generator, in a process of its own.

The load generator is `vllm bench serve` if vLLM is installed, else `evalscope perf`. Its files are
kept, and their names contain the concurrency: the requests (`.rows.jsonl`), the measurements
(`.json`) and the output (`.log`).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ..engines.endpoint import Endpoint
from ..engines.messages import messages
from ..engines.neutral import NEUTRAL
from ..errors import PreconditionError
from ..observation.load import Load, Timing
from ..processes.exit_code import exit_code
from ..processes.supervised import SupervisedProcess
from ..progress import ProgressCallback
from ..spec.case import Case
from ..writing import write_atomically
from . import evalscope_perf, tool, vllm_bench
from .tool import ANSWER_SECONDS, Budget

START_SECONDS = 300.0
COLUMNS = ("ttfts", "itls", "input_lens", "output_lens", "generated_texts", "errors")


@dataclass(frozen=True)
class Traffic:
    """The requests of one load and how they are sent.

    Attributes:
        requests: sent in this order, each once and with greedy sampling.
        concurrency: maximum number of requests in flight.
        ramp: request rate at the start and at the end, in requests per second. The rate rises
            linearly and the arrivals are random. None for a constant rate.
        rate: the constant request rate, in requests per second; the arrivals are random. None
            sends as fast as the concurrency allows.
        exact: True if each answer has its maximum number of tokens, because its end is ignored.
        goodput: service levels in ms, for "ttft", "tpot" and "e2el" (the whole request), as the
            option `--goodput` of `vllm bench serve` has them; empty for none.
    """

    requests: Sequence[Case]
    concurrency: int
    ramp: tuple[float, float] | None = None
    rate: float | None = None
    exact: bool = False
    goodput: Mapping[str, float] = field(default_factory=dict)

    @property
    def budget_seconds(self) -> float:
        """Maximum duration, including the start of the load generator."""
        batches = math.ceil(len(self.requests) / self.concurrency)
        rate = sum(self.ramp) / 2 if self.ramp else self.rate
        arriving = len(self.requests) / rate if rate else 0.0
        return START_SECONDS + ANSWER_SECONDS * batches + 2 * arriving


@dataclass(frozen=True)
class Files:
    """The files that a run reads and writes."""

    rows: Path
    job: Path
    result: Path
    log: Path

    @staticmethod
    def of(directory: Path, traffic: Traffic) -> Files:
        """The files of one traffic."""
        name = f"concurrency-{traffic.concurrency}"
        suffixes = ("rows.jsonl", "job.json", "json", "log")
        return Files(*(directory / f"{name}.{suffix}" for suffix in suffixes))


def generate(
    traffic: Traffic, endpoint: Endpoint, directory: Path, on_progress: ProgressCallback
) -> Load:
    """Sends a load and returns the measurements.

    Args:
        traffic: the requests to send.
        endpoint: a server that is ready.
        directory: existing directory for the generator's files.
        on_progress: called with the number of answers so far.

    Raises:
        PreconditionError: if no installed load generator can send this load, or the generator
            fails or writes an unreadable result.
        ServerError: if the requests are not answered within `traffic.budget_seconds`.
    """
    module = generator_for(traffic).__name__
    files = Files.of(directory, traffic)
    prepare(files, traffic, endpoint)
    command = [sys.executable, "-m", module, str(files.job)]
    _run(SupervisedProcess(command, files.log, _environment(endpoint)), traffic, on_progress)
    return read(files.result, traffic)


def generator_for(traffic: Traffic) -> ModuleType:
    """The module that drives the load generator installed on this host."""
    if vllm_bench.is_installed():
        return vllm_bench
    if not evalscope_perf.is_installed():
        raise PreconditionError(
            "no load generator is installed: neither vLLM with its benchmark nor evalscope is "
            f"installed for {sys.executable}. Run: pip install '{evalscope_perf.REQUIREMENT}'"
        )
    if traffic.ramp:
        raise PreconditionError(
            "evalscope perf cannot raise the request rate during a run. Run this where vLLM is "
            "installed: its `vllm bench serve` can."
        )
    return evalscope_perf


def prepare(files: Files, traffic: Traffic, endpoint: Endpoint) -> None:
    """Writes the requests and the job for the load generator."""
    rows = [json.dumps(_row(case)) for case in traffic.requests]
    write_atomically(files.rows, "".join(f"{row}\n" for row in rows).encode())
    job = {
        "rows": str(files.rows),
        "result": str(files.result),
        "url": endpoint.url,
        "model": endpoint.served_name,
        "concurrency": traffic.concurrency,
        "ramp": traffic.ramp,
        "rate": traffic.rate,
        "extra": {**NEUTRAL, **({"ignore_eos": True} if traffic.exact else {})},
    }
    write_atomically(files.job, json.dumps(job).encode())
    files.result.unlink(missing_ok=True)  # of an earlier run
    files.log.write_bytes(b"")


def _row(case: Case) -> dict[str, Any]:
    """A request with the same messages as `engines.client` sends."""
    return {"messages": messages(case), "output_tokens": case.max_tokens}


def _environment(endpoint: Endpoint) -> dict[str, str]:
    key = {"OPENAI_API_KEY": endpoint.api_key}
    # The generators would use a proxy of the environment even for a server on this host.
    return {**key, "NO_PROXY": "*", "no_proxy": "*"} if endpoint.is_local else key


def _run(generator: SupervisedProcess, traffic: Traffic, on_progress: ProgressCallback) -> None:
    requests = len(traffic.requests)
    overdue = (
        f"{requests} requests at concurrency {traffic.concurrency} did not end within "
        f"{traffic.budget_seconds:.0f} s. The server may hang."
    )
    code = tool.run(generator, Budget(requests, traffic.budget_seconds, overdue), on_progress)
    if code != 0:
        problem = f"the load generator failed with {exit_code(code)}."
        raise PreconditionError(generator.with_tail(problem))


def read(path: Path, traffic: Traffic) -> Load:
    """Reads the measurements of a load generator.

    Args:
        path: its result file: the columns of `vllm bench serve --save-detailed`, in seconds.
        traffic: the requests it sent.

    Raises:
        PreconditionError: if the file is missing, or is not the result of this traffic.
    """
    try:
        result = json.loads(path.read_text("utf-8"))
        values = zip(*(result[column] for column in COLUMNS), strict=True)
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in values]
        answers = [_answer(*pair) for pair in zip(traffic.requests, rows, strict=True)]
        duration, generator = float(result["duration"]), str(result["generator"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PreconditionError(
            f"{path} is not a load generator's result for {len(traffic.requests)} requests "
            f"({type(error).__name__}: {error}). Read the log beside this file, then run again."
        ) from error
    timings = tuple(answer for answer in answers if isinstance(answer, Timing))
    errors = tuple(answer for answer in answers if isinstance(answer, str))
    goodput = _goodput(timings, traffic.goodput, duration) if traffic.goodput else None
    return Load(generator, traffic.concurrency, duration, timings, errors, goodput)


def _answer(case: Case, row: Mapping[str, Any]) -> Timing | str:
    """The timing of one request, or the reason why it failed."""
    ttft, error = float(row["ttfts"]), str(row["errors"])
    if error or ttft <= 0:
        lines = error.strip().splitlines() or ["no token was received"]
        return f"{case.id}: {lines[-1]}"
    return Timing(
        case_id=case.id,
        text=str(row["generated_texts"]),
        prompt_tokens=int(row["input_lens"]) or None,
        output_tokens=int(row["output_lens"]),
        ttft_seconds=ttft,
        # The generators measure until the last token, not until the end of the stream.
        seconds=ttft + sum(row["itls"]),
        itl_seconds=tuple(map(float, row["itls"])),
    )


def _goodput(timings: Sequence[Timing], levels: Mapping[str, float], duration: float) -> float:
    """Requests per second that met every service level (ms). A one-token answer has no TPOT."""
    met = [
        timing
        for timing in timings
        if 1000 * timing.ttft_seconds <= levels.get("ttft", math.inf)
        and 1000 * (timing.tpot_seconds or 0.0) <= levels.get("tpot", math.inf)
        and 1000 * timing.seconds <= levels.get("e2el", math.inf)
    ]
    return len(met) / duration
