"""Runs the offline engines in a process of their own and reads what they made of the requests."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import ServerError
from ..observation import FORCED_TOKENS, Completion, Forced, Scores
from . import offline_worker, torch_extras
from .child import Child
from .exit_code import exit_code
from .offline_worker import PROGRESS, Job

_T = TypeVar("_T")


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
    say: Callable[[str], None],
    budget_seconds: float,
) -> OfflineResult:
    """Does a job in a process that does not outlive this one.

    Args:
        job: what to do.
        env: environment on top of the caller's.
        log_path: file that gets its output.
        say: told what it does.
        budget_seconds: how long it may take.

    Raises:
        ServerError: it died or passed its budget; the message has the root cause.
    """
    with tempfile.TemporaryDirectory(prefix="ascend-vlm-") as name:
        directory = Path(name)
        (directory / "job.json").write_text(json.dumps(job.to_json()), "utf-8")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log_path.write_bytes(b"")
        python_path = torch_extras.child_pythonpath(os.environ.get("PYTHONPATH"))
        worker = Child(
            [sys.executable, "-m", offline_worker.__name__, str(directory)],
            log_path,
            {**env, "PYTHONPATH": python_path},
        )
        _run(worker, say, budget_seconds)
        return _read(directory, job)


def _run(worker: Child, say: Callable[[str], None], budget_seconds: float) -> None:
    def watch(elapsed: float) -> None:
        say(f"offline engines: {_doing(worker)} {elapsed:.0f} s")
        if elapsed > budget_seconds:
            problem = f"the offline engines did not end within {budget_seconds:.0f} s"
            raise ServerError(worker.with_tail(f"{problem} (ModelSpec.budgets)."))

    code = worker.run(watch)
    if code != 0:
        problem = f"the process of the offline engines died ({exit_code(code)})."
        raise ServerError(worker.with_tail(problem))


def _doing(worker: Child) -> str:
    said = [line for line in worker.log.splitlines() if line.startswith(PROGRESS)]
    return said[-1].removeprefix(PROGRESS) if said else "start"


@dataclass(frozen=True)
class _Task:
    """What a task left: its JSON and its arrays, which are named `<index of the case>.<name>`."""

    document: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]

    def table(self, index: int, name: str) -> npt.NDArray[Any]:
        return self.arrays[f"{index}.{name}"]


def _read(directory: Path, job: Job) -> OfflineResult:
    ids = [case.id for case, _ in job.cases]
    tasks = {name: _task(directory, name) for name in job.tasks}
    errors = {n: str(t.document["error"]) for n, t in tasks.items() if "error" in t.document}

    def by_case(name: str, read: Callable[[_Task, int, str], _T]) -> dict[str, _T]:
        if name not in tasks or name in errors:
            return {}
        return {id_: read(tasks[name], index, id_) for index, id_ in enumerate(ids)}

    return OfflineResult(
        answers=by_case("chat", _answer),
        hidden_states=by_case("hidden_states", lambda task, index, _: task.table(index, "hidden")),
        float32=by_case("float32", _float32),
        transformers=by_case("transformers", _transformers),
        transformers_hidden_states=by_case("transformers", _transformers_hidden_states),
        errors=errors,
    )


def _task(directory: Path, name: str) -> _Task:
    from safetensors.numpy import load_file

    document = json.loads((directory / f"{name}.json").read_text("utf-8"))
    return _Task(document, load_file(directory / f"{name}.safetensors"))


def _answer(task: _Task, index: int, case_id: str) -> Completion:
    said = task.document["answers"][index]
    token_ids, finish = tuple(said["token_ids"]), said["finish_reason"]
    return Completion(case_id, said["text"], token_ids, finish, None, None, seconds=0.0)


def _float32(task: _Task, index: int, case_id: str) -> Forced:
    scores = Scores(
        task.table(index, "token_ids"),
        task.table(index, "values"),
        task.table(index, "floor"),
        task.document["are_logits"][index],
    )
    return Forced(case_id, scores, FORCED_TOKENS)


def _transformers(task: _Task, index: int, case_id: str) -> Forced:
    rows = task.table(index, "rows")
    values = _spread(rows, task.table(index, "values"))
    token_ids = np.full(values.shape, -1, dtype=np.int64)
    token_ids[rows] = task.table(index, "token_ids")
    scores = Scores(token_ids, values, values.min(axis=1), are_logits=True)
    return Forced(case_id, scores, FORCED_TOKENS)


def _transformers_hidden_states(task: _Task, index: int, _: str) -> npt.NDArray[np.float32]:
    return _spread(task.table(index, "rows"), task.table(index, "hidden"))


def _spread(rows: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows of a table put where they belong in the whole sequence; NaN elsewhere."""
    table = np.full((int(rows[-1]) + 1, values.shape[1]), np.nan, dtype=values.dtype)
    table[rows] = values
    return table
