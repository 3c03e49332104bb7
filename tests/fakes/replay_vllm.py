"""The replay server as a program in the place of vLLM's, for tests in which the suite starts it.

The environment variable STUB_DEFECTS is a JSON object: serve argument -> name of the defect that
the server has with that argument; the key "again" means every start but the first. STUB_LOG is a
text that the server logs first. STUB_SLOW has the seconds that a streamed text takes longer. With
STUB_SPINS the server busy-waits. With a KV cache of a given
size its `/metrics` counts a preemption for each look. With STUB_ENGINE it has a process of the
engine, and the faults that this variable names:

  blind: /health is 200 whatever the engine does
  patient: clients of a dead engine wait for ever
  cheerful: the server of a dead engine ends with exit code 0
  stays: the server of a dead engine does not end
  mixes: after the engine was stopped, answers about images are wrong
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from fakes import misbehaving_server
from fakes.replay_server import (
    Behaviour,
    Defect,
    Refused,
    Request,
    State,
    Stub,
    changed,
    read_goldens,
    serve,
)

_POLL_SECONDS = 0.05
_LAST_WORDS_SECONDS = 0.5
ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "golden" / "OpenDataLab--MinerU2.5-2509-1.2B" / "tiny"


def install(root: Path) -> Path:
    """Creates a package `vllm` under `root`, which goes first on PYTHONPATH."""
    misbehaving_server.install(root, Path(__file__))
    shutil.copytree(Path(__file__).parent, root / "fakes", dirs_exist_ok=True)
    return root


def main(arguments: list[str]) -> None:
    """Serves until SIGTERM."""
    print(os.environ.get("STUB_LOG", ""), flush=True)
    root = Path(os.environ["STUB_ROOT"])
    defects = json.loads(os.environ.get("STUB_DEFECTS", "{}"))
    if has_been_started():
        arguments = [*arguments, "again"]
    brought = [Defect[name].value for flag, name in defects.items() if flag in arguments]
    port = int(arguments[arguments.index("--port") + 1])
    knowledge = read_goldens(
        root / GOLDENS.relative_to(ROOT), root / "fixtures", root / "fixtures" / "tiny" / "qwen2_vl"
    )
    if "--num-gpu-blocks-override" in arguments:
        count_preemptions()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    behaviour = brought[0] if brought else Behaviour()
    if seconds := os.environ.get("STUB_SLOW"):
        behaviour = dataclasses.replace(behaviour, crash=slowed(float(seconds)))
    key = os.environ["VLLM_API_KEY"]
    faults = os.environ.get("STUB_ENGINE")
    with Engine(faults.split()) if faults is not None else contextlib.nullcontext() as engine:
        if engine:
            behaviour = engine.changed(behaviour)
        with serve(knowledge, behaviour, key=key, port=port, raw_logits=True):
            while "STUB_SPINS" in os.environ and not over.is_set():
                pass
            while not over.wait(_POLL_SECONDS):
                if engine and engine.ends_server:
                    time.sleep(_LAST_WORDS_SECONDS)
                    sys.exit(0 if "cheerful" in engine.faults else 1)


class Engine:
    """A process that does nothing, and a server that does nothing while the process is stopped."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        self.has_been_stopped = False

    def __enter__(self) -> Engine:
        named = ["exec -a VLLM::EngineCore sleep 600"]
        self._process = subprocess.Popen(["/bin/bash", "-c", *named])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def is_dead(self) -> bool:
        return self._process.poll() is not None

    @property
    def is_stopped(self) -> bool:
        return not self.is_dead and (
            psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        )

    @property
    def ends_server(self) -> bool:
        return self.is_dead and "stays" not in self.faults

    def changed(self, behaviour: Behaviour) -> Behaviour:
        """The behaviour of a server with this engine."""
        return dataclasses.replace(
            behaviour, crash=self._compute, health=self._health, answered=self._answered
        )

    def _compute(self, _request: Request, _state: State) -> Refused | None:
        while self.is_stopped or (self.is_dead and "patient" in self.faults):
            time.sleep(_POLL_SECONDS)
        return Refused(500, "EngineDeadError", "dead") if self.is_dead else None

    def _health(self, _state: State) -> int:
        is_sound = not self.is_dead and not self.is_stopped
        self.has_been_stopped |= self.is_stopped
        return 200 if is_sound or "blind" in self.faults else 503

    def _answered(self, text: str, request: Request, _state: State) -> str:
        is_mixed = self.has_been_stopped and "mixes" in self.faults
        return changed(text) if is_mixed and request.images else text


def slowed(seconds: float) -> Callable[[Request, State], None]:
    """Makes a stream without images that has more than one token take longer."""

    def crash(request: Request, _state: State) -> None:
        if request.stream and not request.images and request.max_tokens > 1:
            time.sleep(seconds)

    return crash


def count_preemptions() -> None:
    """Makes `/metrics` count."""
    name, looks = "vllm:num_preemptions", itertools.count()
    Stub.metrics = (  # type: ignore[method-assign]
        lambda _: f"# TYPE {name} counter\n{name}_total {next(looks)}\n"
    )


def has_been_started() -> bool:
    """True if this copy of the program ran before."""
    trace = Path(__file__).with_suffix(".started")
    try:
        trace.touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


if __name__ == "__main__":
    main(sys.argv)
