"""Runs the offline engines in a separate process and reads their results."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ServerError
from ...observation.answers import Completion
from ...observation.numerics import FORCED_TOKENS, Forced, TokenScores
from ...processes.exit_code import exit_code
from ...processes.supervised import SupervisedProcess
from ...progress import Step, StepCallback
from .. import torch_companions
from . import offline_worker
from .offline_worker import PROGRESS, Job


@dataclass(frozen=True)
class OfflineResult:
    """The results of the offline engines, by case id.

    A mapping is empty if its task failed; `errors` contains the reason.

    Attributes:
        answers: the answers of `LLM.chat`.
        hidden_states: last hidden states from the pooling runner, shape (tokens, width), float32.
        float32: scores of the forced answers by vLLM in float32.
        transformers: scores of the forced answers by Transformers on the device.
        transformers_hidden_states: last hidden states from Transformers, shape (tokens, width),
            NaN at positions that were not computed.
        errors: task -> error.
    """

    answers: Mapping[str, Completion]
    hidden_states: Mapping[str, npt.NDArray[np.float32]]
    float32: Mapping[str, Forced]
    transformers: Mapping[str, Forced]
    transformers_hidden_states: Mapping[str, npt.NDArray[np.float32]]
    errors: Mapping[str, str]


def run(
    job: Job,
    env: Mapping[str, str],
    log_path: Path,
    on_step: StepCallback,
    budget_seconds: float,
) -> OfflineResult:
    """Runs a job in a process that cannot outlive this one.

    If the process dies or exceeds its budget, tasks that had ended keep their results. The others
    get that problem as their error.

    Args:
        job: the tasks and requests.
        env: variables added to the current environment.
        log_path: file for the process's output.
        on_step: called with the running task and the elapsed seconds.
        budget_seconds: maximum time for the whole job.

    Raises:
        ServerError: if the process dies or exceeds its budget before any task has ended; the
            message has the root cause.
    """
    with tempfile.TemporaryDirectory(prefix="vlm-offline-") as name:
        directory = Path(name)
        (directory / "job.json").write_text(json.dumps(job.to_json()), "utf-8")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.write_bytes(b"")
        python_path = torch_companions.child_pythonpath(os.environ.get("PYTHONPATH"))
        worker = SupervisedProcess(
            [sys.executable, "-m", offline_worker.__name__, str(directory)],
            log_path,
            {**env, "PYTHONPATH": python_path},
            scratch=directory,
        )
        problem = _run(worker, on_step, budget_seconds)
        result = read(directory, job, problem)
    if problem is not None and all(result.errors.get(task) == problem for task in job.tasks):
        raise ServerError(problem)
    return result


def _run(worker: SupervisedProcess, on_step: StepCallback, budget_seconds: float) -> str | None:
    """Runs the process; returns the problem if it ended before its last task did."""

    def on_poll(elapsed: float) -> None:
        on_step(Step(f"offline engines: {_current_task(worker)}", "", elapsed, budget_seconds))
        if elapsed > budget_seconds:
            problem = f"the offline engines did not end within {budget_seconds:.0f} s"
            raise ServerError(f"{problem} (ModelSpec.budgets), in task {_current_task(worker)!r}.")

    try:
        code = worker.run(on_poll)
    except ServerError as error:
        return worker.with_tail(str(error))
    if code == 0:
        return None
    problem = f"the process of the offline engines died ({exit_code(code)})"
    return worker.with_tail(f"{problem} in task {_current_task(worker)!r}.")


def _current_task(worker: SupervisedProcess) -> str:
    lines = [line for line in worker.log.splitlines() if line.startswith(PROGRESS)]
    return lines[-1].removeprefix(PROGRESS) if lines else "start"


@dataclass(frozen=True)
class _TaskResult:
    """The files of a task: its JSON, and its arrays, named `<index of the case>.<name>`."""

    document: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]
    cases: int

    def entry(self, index: int, name: str) -> Any:
        """The entry of one case in a list of the JSON, which has one entry per case."""
        entries = self.document[name]
        if len(entries) != self.cases:
            raise ValueError(f"{len(entries)} {name} for {self.cases} requests")
        return entries[index]

    def table(self, index: int, name: str, *shape: int | None) -> npt.NDArray[Any]:
        """The array of one case, checked for a shape; None in the shape means any length."""
        table = self.arrays[f"{index}.{name}"]
        fits = len(table.shape) == len(shape) and all(
            expected in {None, found} for expected, found in zip(shape, table.shape, strict=True)
        )
        if not fits:
            raise ValueError(f"{name} of request {index + 1} has shape {table.shape}, not {shape}")
        return table


def read(directory: Path, job: Job, problem: str | None) -> OfflineResult:
    """Reads the results of the tasks; `problem` is the error of a task without a result."""
    ids = [case.id for case, _ in job.cases]
    found: dict[str, Mapping[str, Any]] = {field: {} for of in _READERS.values() for field in of}
    errors: dict[str, str] = {}
    for task in job.tasks:
        try:
            result = _task_result(directory, task, len(ids), problem)
            found |= {
                field: {id_: reader(result, index, id_) for index, id_ in enumerate(ids)}
                for field, reader in _READERS[task].items()
            }
        except ServerError as error:
            errors[task] = str(error)
        except Exception as error:  # whatever the engine wrote; the other tasks still count
            errors[task] = f"its result cannot be read ({type(error).__name__}: {error})"
    return OfflineResult(**found, errors=errors)


def _task_result(directory: Path, task: str, cases: int, problem: str | None) -> _TaskResult:
    from safetensors.numpy import load_file

    path = directory / f"{task}.json"
    if not path.exists():
        raise ServerError(problem or "it wrote no result")
    document = json.loads(path.read_text("utf-8"))
    if "error" in document:
        raise ServerError(document["error"])
    return _TaskResult(document, load_file(path.with_suffix(".safetensors")), cases)


def _answer(result: _TaskResult, index: int, case_id: str) -> Completion:
    answer = result.entry(index, "answers")
    token_ids, finish = tuple(answer["token_ids"]), answer["finish_reason"]
    return Completion(case_id, answer["text"], token_ids, finish, None, None, seconds=0.0)


def _hidden_states(result: _TaskResult, index: int, _: str) -> npt.NDArray[np.float32]:
    return result.table(index, "hidden", None, None)


def _float32(result: _TaskResult, index: int, case_id: str) -> Forced:
    token_ids = result.table(index, "token_ids", None, None)
    scores = TokenScores(
        token_ids,
        result.table(index, "values", *token_ids.shape),
        result.table(index, "floor", len(token_ids)),
        result.entry(index, "are_logits"),
    )
    return Forced(case_id, scores, FORCED_TOKENS)


def _transformers(result: _TaskResult, index: int, case_id: str) -> Forced:
    positions = result.table(index, "positions", None)
    listed = result.table(index, "token_ids", len(positions), None)
    values = _spread(positions, result.table(index, "values", *listed.shape))
    token_ids = np.full(values.shape, -1, dtype=np.int64)
    token_ids[positions] = listed
    scores = TokenScores(token_ids, values, values.min(axis=1), are_logits=True)
    return Forced(case_id, scores, FORCED_TOKENS)


def _transformers_hidden_states(result: _TaskResult, index: int, _: str) -> npt.NDArray[np.float32]:
    positions = result.table(index, "positions", None)
    return _spread(positions, result.table(index, "hidden", len(positions), None))


def _spread(positions: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Puts the rows of a table at their positions in the whole sequence; NaN elsewhere."""
    table = np.full((int(positions[-1]) + 1, values.shape[1]), np.nan, dtype=values.dtype)
    table[positions] = values
    return table


_READERS: Mapping[str, Mapping[str, Callable[[_TaskResult, int, str], Any]]] = {
    "chat": {"answers": _answer},
    "hidden_states": {"hidden_states": _hidden_states},
    "float32": {"float32": _float32},
    "transformers": {
        "transformers": _transformers,
        "transformers_hidden_states": _transformers_hidden_states,
    },
}
"""Task -> field of `OfflineResult` -> function that reads one case of that field."""
