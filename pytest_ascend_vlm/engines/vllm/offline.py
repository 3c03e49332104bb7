"""Runs the offline engines in a process of their own and reads what they made of the requests."""

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
from ...progress import ProgressCallback
from .. import torch_companions
from . import offline_worker
from .offline_worker import PROGRESS, Job


@dataclass(frozen=True)
class OfflineResult:
    """What the offline engines made of a job's requests, by case id.

    Each is empty where its task failed; `errors` says why.

    Attributes:
        answers: of `LLM.chat`.
        hidden_states: shape (tokens, width), float32; of the pooling runner.
        float32: what the engine thinks in float32 of the forced answers.
        transformers: what Transformers on the device thinks of them.
        transformers_hidden_states: shape (tokens, width), NaN where it was not asked.
        errors: task -> what went wrong.
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
    on_progress: ProgressCallback,
    budget_seconds: float,
) -> OfflineResult:
    """Does a job in a process that does not outlive this one.

    Args:
        job: what to do.
        env: environment on top of the caller's.
        log_path: file that gets its output.
        on_progress: told what it does.
        budget_seconds: how long it may take.

    Raises:
        ServerError: it died or passed its budget before any task had ended; the message has the
            root cause. Where some had ended, that is the error of the others.
    """
    with tempfile.TemporaryDirectory(prefix="ascend-vlm-") as name:
        directory = Path(name)
        (directory / "job.json").write_text(json.dumps(job.to_json()), "utf-8")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.write_bytes(b"")
        python_path = torch_companions.child_pythonpath(os.environ.get("PYTHONPATH"))
        worker = SupervisedProcess(
            [sys.executable, "-m", offline_worker.__name__, str(directory)],
            log_path,
            {**env, "PYTHONPATH": python_path},
        )
        problem = _run(worker, on_progress, budget_seconds)
        result = _read(directory, job, problem)
    if problem is not None and all(result.errors.get(task) == problem for task in job.tasks):
        raise ServerError(problem)
    return result


def _run(
    worker: SupervisedProcess, on_progress: ProgressCallback, budget_seconds: float
) -> str | None:
    """Lets the process do its tasks; returns why it ended before the last of them, if it did."""

    def watch(elapsed: float) -> None:
        on_progress(f"offline engines: {_doing(worker)} {elapsed:.0f} s")
        if elapsed > budget_seconds:
            problem = f"the offline engines did not end within {budget_seconds:.0f} s"
            raise ServerError(f"{problem} (ModelSpec.budgets), at the task {_doing(worker)!r}.")

    try:
        code = worker.run(watch)
    except ServerError as error:
        return worker.with_tail(str(error))
    if code == 0:
        return None
    problem = f"the process of the offline engines died ({exit_code(code)})"
    return worker.with_tail(f"{problem} at the task {_doing(worker)!r}.")


def _doing(worker: SupervisedProcess) -> str:
    said = [line for line in worker.log.splitlines() if line.startswith(PROGRESS)]
    return said[-1].removeprefix(PROGRESS) if said else "start"


@dataclass(frozen=True)
class _Left:
    """What a task left: its JSON and its arrays, which are named `<index of the case>.<name>`."""

    document: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]
    cases: int

    def entry(self, index: int, name: str) -> Any:
        """One case's entry of a list in the JSON, which has one for each case."""
        entries = self.document[name]
        if len(entries) != self.cases:
            raise ValueError(f"{len(entries)} {name} of {self.cases} requests")
        return entries[index]

    def table(self, index: int, name: str, *shape: int | None) -> npt.NDArray[Any]:
        """One case's array, of this shape; None for any length."""
        table = self.arrays[f"{index}.{name}"]
        fits = len(table.shape) == len(shape) and all(
            asked in {None, found} for asked, found in zip(shape, table.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{name} of request {index + 1} is of shape {table.shape}, not {shape}"
            )
        return table


def _read(directory: Path, job: Job, problem: str | None) -> OfflineResult:
    """What the tasks left; of one that left nothing, `problem` is the error."""
    ids = [case.id for case, _ in job.cases]
    found: dict[str, Mapping[str, Any]] = {field: {} for of in _READERS.values() for field in of}
    errors: dict[str, str] = {}
    for task in job.tasks:
        try:
            left = _left(directory, task, len(ids), problem)
            found |= {
                field: {id_: read(left, index, id_) for index, id_ in enumerate(ids)}
                for field, read in _READERS[task].items()
            }
        except ServerError as error:
            errors[task] = str(error)
        except Exception as error:  # of what a foreign engine gave: anything; others still count
            errors[task] = f"its result cannot be read ({type(error).__name__}: {error})"
    return OfflineResult(**found, errors=errors)


def _left(directory: Path, task: str, cases: int, problem: str | None) -> _Left:
    from safetensors.numpy import load_file

    path = directory / f"{task}.json"
    if not path.exists():
        raise ServerError(problem or "it left no result")
    document = json.loads(path.read_text("utf-8"))
    if "error" in document:
        raise ServerError(document["error"])
    return _Left(document, load_file(path.with_suffix(".safetensors")), cases)


def _answer(left: _Left, index: int, case_id: str) -> Completion:
    said = left.entry(index, "answers")
    token_ids, finish = tuple(said["token_ids"]), said["finish_reason"]
    return Completion(case_id, said["text"], token_ids, finish, None, None, seconds=0.0)


def _hidden_states(left: _Left, index: int, _: str) -> npt.NDArray[np.float32]:
    return left.table(index, "hidden", None, None)


def _float32(left: _Left, index: int, case_id: str) -> Forced:
    token_ids = left.table(index, "token_ids", None, None)
    scores = TokenScores(
        token_ids,
        left.table(index, "values", *token_ids.shape),
        left.table(index, "floor", len(token_ids)),
        left.entry(index, "are_logits"),
    )
    return Forced(case_id, scores, FORCED_TOKENS)


def _transformers(left: _Left, index: int, case_id: str) -> Forced:
    positions = left.table(index, "positions", None)
    listed = left.table(index, "token_ids", len(positions), None)
    values = _spread(positions, left.table(index, "values", *listed.shape))
    token_ids = np.full(values.shape, -1, dtype=np.int64)
    token_ids[positions] = listed
    scores = TokenScores(token_ids, values, values.min(axis=1), are_logits=True)
    return Forced(case_id, scores, FORCED_TOKENS)


def _transformers_hidden_states(left: _Left, index: int, _: str) -> npt.NDArray[np.float32]:
    positions = left.table(index, "positions", None)
    return _spread(positions, left.table(index, "hidden", len(positions), None))


def _spread(positions: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows of a table put where they belong in the whole sequence; NaN elsewhere."""
    table = np.full((int(positions[-1]) + 1, values.shape[1]), np.nan, dtype=values.dtype)
    table[positions] = values
    return table


_READERS: Mapping[str, Mapping[str, Callable[[_Left, int, str], Any]]] = {
    "chat": {"answers": _answer},
    "hidden_states": {"hidden_states": _hidden_states},
    "float32": {"float32": _float32},
    "transformers": {
        "transformers": _transformers,
        "transformers_hidden_states": _transformers_hidden_states,
    },
}
"""Task -> field of `OfflineResult` -> what reads one case of it."""
