"""Measures an offline engine with `vllm bench`, in a process of its own.

Its files are kept beside each other: the job (`job.json`), the result (`result.json`), the tool's
own result (`result.tool.json`) and the output (`tool.log`).
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engines import torch_companions
from ..errors import PreconditionError, ServerError
from ..observation.offline_load import Batch, OfflineLoad
from ..processes.exit_code import exit_code
from ..processes.supervised import SupervisedProcess
from ..progress import ProgressCallback
from ..spec.number import is_whole
from ..spec.workload import Workload
from ..writing import write_atomically
from . import tool, vllm_offline
from .job import has_module
from .tool import ANSWER_SECONDS, Budget

_AT_ONCE = 8
"""Number of requests that an engine computes together at least, for the maximum of its time."""


@dataclass(frozen=True)
class Engine:
    """An engine to start.

    Attributes:
        model_path: the checkpoint's directory.
        name: the model's name.
        serve: the serve arguments.
        env: variables added to the current environment.
        start_seconds: maximum time of its start.
    """

    model_path: Path
    name: str
    serve: Mapping[str, Any]
    env: Mapping[str, str]
    start_seconds: float


def measure(
    workload: Workload,
    warmups: int,
    engine: Engine,
    directory: Path,
    on_progress: ProgressCallback,
) -> OfflineLoad:
    """Measures a workload with its tool.

    Args:
        workload: the workload, one of an offline engine.
        warmups: number of batches before the measured ones.
        engine: the engine that the tool starts.
        directory: directory for the tool's files.
        on_progress: called with the number of batches, or of answers, so far.

    Raises:
        PreconditionError: the installed vLLM does not have the tool.
        ServerError: the tool fails, exceeds its time, or writes an unreadable result.
    """
    if not has_module("vllm", f"benchmarks/{workload.tool}.py"):
        raise PreconditionError(
            f"vllm bench {workload.tool} is not installed for {sys.executable}. vLLM has it from "
            "0.11 on: run this where such a vLLM is installed."
        )
    result, log = directory / "result.json", directory / "tool.log"
    job = {
        "tool": workload.tool,
        "model": str(engine.model_path),
        "name": engine.name,
        "serve": dict(engine.serve),
        "batch": workload.batch,
        "batches": workload.requests // workload.batch,
        "warmups": warmups,
        "input_tokens": workload.input_tokens,
        "output_tokens": workload.output_tokens,
        "result": str(result),
    }
    write_atomically(directory / "job.json", json.dumps(job).encode())
    result.unlink(missing_ok=True)  # of an earlier run
    log.write_bytes(b"")
    command = [sys.executable, "-m", vllm_offline.__name__, str(directory / "job.json")]
    python_path = torch_companions.child_pythonpath(os.environ.get("PYTHONPATH"))
    process = SupervisedProcess(command, log, {**engine.env, "PYTHONPATH": python_path})
    code = tool.run(process, _budget(workload, warmups, engine), on_progress)
    if code != 0:
        problem = f"vllm bench {workload.tool} failed with {exit_code(code)}."
        raise ServerError(process.with_tail(problem))
    return _read(result, workload)


def _budget(workload: Workload, warmups: int, engine: Engine) -> Budget:
    batches = workload.requests // workload.batch
    answers = math.ceil(workload.batch / _AT_ONCE) * (batches + warmups)
    seconds = engine.start_seconds + ANSWER_SECONDS * answers
    overdue = (
        f"vllm bench {workload.tool} with {workload.requests} requests did not end within "
        f"{seconds:.0f} s. The engine may hang."
    )
    # The tools' own progress bars: one counts batches, the other answers.
    steps = batches if workload.tool == "latency" else workload.requests
    return Budget(steps, seconds, overdue)


def _read(path: Path, workload: Workload) -> OfflineLoad:
    try:
        document = json.loads(path.read_text("utf-8"))
        batches = tuple(_batch(one, workload.batch) for one in document["batches"])
        if len(batches) != (expected := workload.requests // workload.batch):
            raise ValueError(f"{len(batches)} batches instead of {expected}")
        return OfflineLoad(str(document["generator"]), str(document["command"]), batches)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ServerError(
            f"{path} is not a result of vllm bench ({type(error).__name__}: {error}). Read the log "
            "beside this file, then run again."
        ) from error


def _batch(found: Mapping[str, Any], requests: int) -> Batch:
    seconds = float(found["seconds"])
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"a batch that took {seconds} s")
    prompts, answers = tuple(found["input_tokens"]), tuple(found["output_tokens"])
    if max(len(prompts), len(answers)) > requests or not all(map(is_whole, (*prompts, *answers))):
        raise ValueError(f"numbers of tokens that are none of {requests} requests")
    return Batch(seconds, prompts, answers)
