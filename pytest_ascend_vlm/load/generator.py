"""Puts a served model under load, with a load generator that others maintain.

That is `vllm bench serve` wherever a vLLM with it is installed, and `evalscope perf` elsewhere. It
runs in a process of its own. Its files stay, named by concurrency: the requests (`.rows.jsonl`),
what it measured (`.json`) and what it said (`.log`).
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..engines.endpoint import Endpoint
from ..engines.messages import messages
from ..errors import PreconditionError, ServerError
from ..observation.load import Load, Timing
from ..processes.exit_code import exit_code
from ..processes.supervised import SupervisedProcess
from ..progress import ProgressCallback
from ..spec.case import Case
from ..writing import write_atomically
from . import evalscope_perf, vllm_bench

_START_SECONDS = 300.0
_ANSWER_SECONDS = 120.0
_COLUMNS = ("ttfts", "itls", "input_lens", "output_lens", "generated_texts", "errors")


@dataclass(frozen=True)
class Workload:
    """What a served model is asked under load.

    Attributes:
        requests: sent in this order, each once and greedy.
        concurrency: most requests on the way at a time.
        ramp: requests a second at the start and at the end, rising in a line and arriving at
            random; None to send as fast as the concurrency allows.
        goodput: service levels in ms, of "ttft" and "tpot"; None for none.
    """

    requests: Sequence[Case]
    concurrency: int
    ramp: tuple[float, float] | None = None
    goodput: Mapping[str, float] | None = None

    @property
    def budget_seconds(self) -> float:
        """How long it may take, the generator's own start included."""
        in_turn = math.ceil(len(self.requests) / self.concurrency)
        arriving = 2 * len(self.requests) / sum(self.ramp) if self.ramp else 0.0
        return _START_SECONDS + _ANSWER_SECONDS * in_turn + 2 * arriving


@dataclass(frozen=True)
class _Files:
    """What a run reads and leaves."""

    rows: Path
    job: Path
    result: Path
    log: Path

    @staticmethod
    def of(directory: Path, workload: Workload) -> _Files:
        name = f"concurrency-{workload.concurrency}"
        ends = ("rows.jsonl", "job.json", "json", "log")
        return _Files(*(directory / f"{name}.{end}" for end in ends))


def generate(
    workload: Workload, endpoint: Endpoint, directory: Path, on_progress: ProgressCallback
) -> Load:
    """Sends a workload and returns how it was answered.

    Args:
        workload: what is sent.
        endpoint: a server that is ready.
        directory: where the generator's files stay.
        on_progress: told how far it is.

    Raises:
        PreconditionError: no load generator can do this here, or what it left cannot be read.
        ServerError: it did not end in time.
    """
    module = _generator(workload).__name__
    files = _Files.of(directory, workload)
    _prepare(files, workload, endpoint)
    command = [sys.executable, "-m", module, str(files.job)]
    _run(SupervisedProcess(command, files.log, _environment(endpoint)), workload, on_progress)
    return read(files.result, workload)


def _generator(workload: Workload) -> ModuleType:
    """The module that drives the load generator of this host."""
    if vllm_bench.is_installed():
        return vllm_bench
    if not evalscope_perf.is_installed():
        raise PreconditionError(
            "there is no load generator here: neither vLLM with its benchmark nor evalscope is "
            f"installed for {sys.executable}. pip install '{evalscope_perf.REQUIREMENT}'"
        )
    if workload.ramp:
        raise PreconditionError(
            "evalscope perf cannot raise the request rate during a run. Run this where vLLM is "
            "installed: its `vllm bench serve` can."
        )
    return evalscope_perf


def _prepare(files: _Files, workload: Workload, endpoint: Endpoint) -> None:
    rows = [json.dumps(_row(case)) for case in workload.requests]
    write_atomically(files.rows, "".join(f"{row}\n" for row in rows).encode())
    job = {
        "rows": str(files.rows),
        "result": str(files.result),
        "url": endpoint.url,
        "model": endpoint.served_name,
        "concurrency": workload.concurrency,
        "ramp": workload.ramp,
    }
    write_atomically(files.job, json.dumps(job).encode())
    files.result.unlink(missing_ok=True)  # of an earlier run
    files.log.write_bytes(b"")


def _row(case: Case) -> dict[str, Any]:
    """A request exactly as our client sends it."""
    content = messages(case)[0]["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {"content": parts, "output_tokens": case.max_tokens}


def _environment(endpoint: Endpoint) -> dict[str, str]:
    key = {"OPENAI_API_KEY": endpoint.api_key}
    # The generators heed the proxies of the environment, also on the way to this host.
    return {**key, "NO_PROXY": "*", "no_proxy": "*"} if endpoint.is_local else key


def _run(generator: SupervisedProcess, workload: Workload, on_progress: ProgressCallback) -> None:
    requests = len(workload.requests)

    def watch(elapsed: float) -> None:
        # How many were answered is in the generator's own progress bar.
        done = re.findall(rf"(\d+)/{requests} \[", generator.log)
        on_progress(f"{done[-1]} of {requests}, {elapsed:.0f} s" if done else f"{elapsed:.0f} s")
        if elapsed > workload.budget_seconds:
            problem = (
                f"{requests} requests, {workload.concurrency} at a time, did not end within "
                f"{workload.budget_seconds:.0f} s. The server may hang."
            )
            raise ServerError(generator.with_tail(problem))

    code = generator.run(watch)
    if code != 0:
        problem = f"the load generator ended with {exit_code(code)}."
        raise PreconditionError(generator.with_tail(problem))


def read(path: Path, workload: Workload) -> Load:
    """What a load generator measured.

    Args:
        path: its result: the columns of `vllm bench serve --save-detailed`, in seconds.
        workload: what it sent.

    Raises:
        PreconditionError: this is no such result.
    """
    try:
        result = json.loads(path.read_text("utf-8"))
        told = zip(*(result[column] for column in _COLUMNS), strict=True)
        rows = [dict(zip(_COLUMNS, row, strict=True)) for row in told]
        answers = [_answer(*pair) for pair in zip(workload.requests, rows, strict=True)]
        duration, generator = float(result["duration"]), str(result["generator"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PreconditionError(
            f"{path} is not what a load generator writes about {len(workload.requests)} requests "
            f"({type(error).__name__}: {error}). See its log, which is beside it, and run again."
        ) from error
    timings = tuple(answer for answer in answers if isinstance(answer, Timing))
    errors = tuple(answer for answer in answers if isinstance(answer, str))
    goodput = _goodput(timings, workload.goodput, duration) if workload.goodput else None
    return Load(generator, workload.concurrency, duration, timings, errors, goodput)


def _answer(case: Case, told: Mapping[str, Any]) -> Timing | str:
    """How one request was answered, or why it was not."""
    ttft, error = float(told["ttfts"]), str(told["errors"])
    if error or ttft <= 0:
        lines = error.strip().splitlines() or ["no token came"]
        return f"{case.id}: {lines[-1]}"
    return Timing(
        case_id=case.id,
        text=str(told["generated_texts"]),
        prompt_tokens=int(told["input_lens"]) or None,
        output_tokens=int(told["output_lens"]),
        ttft_seconds=ttft,
        # The generators count until the last token, not until the stream ends.
        seconds=ttft + sum(told["itls"]),
    )


def _goodput(timings: Sequence[Timing], levels: Mapping[str, float], duration: float) -> float:
    """Requests a second that met every service level (ms); an only token has no TPOT to miss."""
    met = [
        timing
        for timing in timings
        if 1000 * timing.ttft_seconds <= levels.get("ttft", math.inf)
        and 1000 * (timing.tpot_seconds or 0.0) <= levels.get("tpot", math.inf)
    ]
    return len(met) / duration
