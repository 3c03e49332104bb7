"""The replay server as a program in the place of vLLM's, for tests in which the suite starts it.

The environment variable STUB_DEFECTS is a JSON object: serve argument -> name of the defect that
the server has with that argument; the key "again" means every start but the first. STUB_LOG is a
text that the server logs first. With STUB_SPINS the server busy-waits. With a KV cache of a given
size its `/metrics` counts a preemption for each look.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from fakes import misbehaving_server
from fakes.replay_server import Defect, Stub, read_goldens, serve

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
    behaviour = brought[0] if brought else None
    key = os.environ["VLLM_API_KEY"]
    with serve(knowledge, behaviour, key=key, port=port, raw_logits=True):
        while "STUB_SPINS" in os.environ and not over.is_set():
            pass
        over.wait()


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
