"""The part of a cluster's run that a host does: it describes itself, and runs a test process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from ..checkpoints.find import Places, find_checkpoint
from ..errors import CheckpointError
from ..integration.receipt import set_up, unmodified_engines
from ..processes.shared_tmp import shared_tmp
from ..processes.supervised import SupervisedProcess
from ..search_path import roots
from ..session.conditions import engine_files, host_conditions
from ..session.run import Run
from ..spec.model import ModelSpec
from . import child, reasons
from .work import Message, Question, Work

_VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"


def look(question: Question) -> dict[str, Any]:
    """Describes this host: the fields of `Host` that only the host itself knows."""
    _restore_environment()
    here = roots("fixtures", Path.cwd() / question.fixtures)
    options = dataclasses.replace(question.options, ray=None, fixture_roots=here)
    run = Run(options, lambda _: None)
    unavailable = run.unavailable_reason
    places = Places(here, options.weights_root, options.weights)
    return {
        "label": run.platform.label,
        "set_up": set_up(run),
        "unavailable": unavailable,
        "misconfigured": None if unavailable else run.platform.misconfigured_reason(),
        "weights": {
            model.model_id: _weights_problem(model, options.checkpoint, places)
            for model in question.models
        },
        "packages": {model.model_id: run.lacks_packages_reason(model) for model in question.models},
        "unmodified": unmodified_engines() if question.digests else {},
        "conditions": host_conditions(run),
        "engine_files": engine_files(),
    }


def _weights_problem(model: ModelSpec, kind: str, places: Places) -> str | None:
    try:
        find_checkpoint(model, kind, places)
    except CheckpointError as error:
        return str(error)
    return None


def judge(work: Work) -> Iterator[list[Message]]:
    """Runs tests in a process of their own; yields its messages as they come.

    To close the iterator ends the process and its servers. They also end if this process dies.
    """
    _restore_environment()
    root = Path.cwd()
    directory = work.log_dir / work.run_name
    directory.mkdir(parents=True, exist_ok=True)
    name = work.suite_class.rpartition("::")[2]
    # Tests without a class are named by their module, which may be in a subdirectory.
    log = directory / f"{name.replace('/', '-')}-pytest.log"
    log.touch()
    with tempfile.TemporaryDirectory(prefix="vlm-ray-") as own:
        order, channel = Path(own, "work"), Path(own, "channel")
        order.write_text(work.as_text(), "utf-8")
        channel.touch()
        arguments = [str(root), str(order), str(channel), shared_tmp()]
        command = [sys.executable, "-m", child.__name__, *arguments]
        process = SupervisedProcess(command, log, cwd=root / work.directory, scratch=Path(own))
        with channel.open("rb") as stream, contextlib.closing(process.polled()) as polled:
            rest, code = b"", None
            while code is None:
                try:
                    next(polled)
                except StopIteration as ended:
                    code = int(ended.value)
                *lines, rest = (rest + stream.read()).split(b"\n")
                if lines:
                    yield [json.loads(line) for line in lines]
            problem = reasons.ended_early(name, work.host, code)
            yield [{"ended": process.with_tail(problem)}]


def _restore_environment() -> None:
    """Gives this process the environment of its host, without what Ray set for this task.

    Ray sets OMP_NUM_THREADS to the CPUs that the task asks for, which would slow a server down. It
    lists visible cards in any order, where CANN requires an ascending one.
    """
    if "OMP_NUM_THREADS" not in psutil.Process(os.getppid()).environ():
        os.environ.pop("OMP_NUM_THREADS", None)
    if cards := os.environ.get(_VISIBLE):
        os.environ[_VISIBLE] = ",".join(sorted(cards.split(","), key=int))
