"""A package `vllm` whose offline engine says what it was given, and misbehaves on command.

FAKE_VLLM in the environment: "dies" (the process ends), "hangs", "no-pooling" (raises).
"""

from __future__ import annotations

from pathlib import Path

ENGINE = """
import os, time
from types import SimpleNamespace

class SamplingParams:
    def __init__(self, **options):
        self.options = options

class LLM:
    def __init__(self, **arguments):
        behaviour = os.environ.get("FAKE_VLLM")
        if behaviour == "dies":
            print("Segmentation fault in a kernel", flush=True)
            os._exit(139)
        if behaviour == "hangs":
            print("pid", os.getpid(), flush=True)
            time.sleep(600)
        if behaviour == "no-pooling" and arguments.get("runner") == "pooling":
            raise RuntimeError("no pooling on this device")
        self.arguments = arguments

    def chat(self, chats, sampling, use_tqdm):
        said = " ".join(sorted(self.arguments))
        answer = SimpleNamespace(text=f"巴黎 {said}", token_ids=[1, 2], finish_reason="stop")
        return [SimpleNamespace(outputs=[answer]) for _ in chats]
"""
ARGUMENTS = """
import dataclasses

@dataclasses.dataclass
class EngineArgs:
    model: str = ""
    seed: int = 0
"""


def install(root: Path) -> Path:
    """Makes the package under `root`, to be put first on PYTHONPATH."""
    package = root / "vllm" / "engine"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "__init__.py").write_text(ENGINE, "utf-8")
    (package / "arg_utils.py").write_text(ARGUMENTS, "utf-8")
    return root
