"""The stub in the place of vLLM's server, so that the plugin starts, stops and variants it.

STUB_DEFECTS in the environment, JSON: serve argument -> name of the stub's defect that it brings;
"again" stands for every start but the first. STUB_SPINS lets it wait in a loop.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from fakes import misbehaving_server
from fakes.replay_server import Defect, read_goldens, serve

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "golden" / "OpenDataLab--MinerU2.5-2509-1.2B" / "tiny"


def install(root: Path) -> Path:
    """Makes a package `vllm` under `root`, to be put first on PYTHONPATH."""
    misbehaving_server.install(root, Path(__file__))
    shutil.copytree(Path(__file__).parent, root / "fakes", dirs_exist_ok=True)
    return root


def main(arguments: list[str]) -> None:
    """Serves until it is told to stop."""
    root = Path(os.environ["STUB_ROOT"])
    defects = json.loads(os.environ.get("STUB_DEFECTS", "{}"))
    if has_been_started():
        arguments = [*arguments, "again"]
    brought = [Defect[name].value for flag, name in defects.items() if flag in arguments]
    port = int(arguments[arguments.index("--port") + 1])
    knowledge = read_goldens(
        root / GOLDENS.relative_to(ROOT), root / "fixtures", root / "fixtures" / "tiny" / "qwen2_vl"
    )
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    behaviour = brought[0] if brought else None
    key = os.environ["VLLM_API_KEY"]
    with serve(knowledge, behaviour, key=key, port=port, raw_logits=True):
        while "STUB_SPINS" in os.environ and not over.is_set():
            pass
        over.wait()


def has_been_started() -> bool:
    """Whether this copy of the program ran before."""
    trace = Path(__file__).with_suffix(".started")
    try:
        trace.touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


if __name__ == "__main__":
    main(sys.argv)
