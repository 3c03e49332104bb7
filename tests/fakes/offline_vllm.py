"""A fake package `vllm`: its offline engine answers with its arguments' names, or has a defect.

The environment variable FAKE_VLLM chooses the defect: "dies" (the process ends), "hangs",
"no-pooling" (raises), "dies-pooling", "one-answer-less", "odd-tokens" (not JSON), "flat-states"
(one dimension instead of two). FAKE_VLLM_STARTS names a file that gets one line per started engine.
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
        behaviour = self.behaviour = os.environ.get("FAKE_VLLM")
        pools = arguments.get("runner") == "pooling"
        if starts := os.environ.get("FAKE_VLLM_STARTS"):
            with open(starts, "a") as file:
                print("pooling" if pools else arguments.get("dtype"), file=file)
        if behaviour == "dies" or (behaviour == "dies-pooling" and pools):
            print("Segmentation fault in a kernel", flush=True)
            os._exit(139)
        if behaviour == "hangs":
            print("pid", os.getpid(), flush=True)
            time.sleep(600)
        if behaviour == "no-pooling" and pools:
            raise RuntimeError("no pooling on this device")
        self.arguments = arguments

    def chat(self, chats, sampling, use_tqdm):
        said = " ".join(sorted(self.arguments))
        tokens = [object()] if self.behaviour == "odd-tokens" else [1, 2]
        answer = SimpleNamespace(text=f"巴黎 {said}", token_ids=tokens, finish_reason="stop")
        answers = [SimpleNamespace(outputs=[answer]) for _ in chats]
        return answers[1:] if self.behaviour == "one-answer-less" else answers

    def encode(self, prompts, **_):
        import torch, transformers

        known = transformers.AutoTokenizer.from_pretrained(self.arguments["model"])
        width = () if self.behaviour == "flat-states" else (4,)
        texts = [known(one["prompt"], add_special_tokens=False)["input_ids"] for one in prompts]
        states = [SimpleNamespace(data=torch.zeros((len(ids), *width))) for ids in texts]
        return [
            SimpleNamespace(prompt_token_ids=ids, outputs=own)
            for ids, own in zip(texts, states, strict=True)
        ]
"""
ARGUMENTS = """
import dataclasses

@dataclasses.dataclass
class EngineArgs:
    model: str = ""
    seed: int = 0
"""
CONFIG = """
import dataclasses

@dataclasses.dataclass
class PoolerConfig:
    task: str | None = None
    use_activation: bool | None = None
"""
TASKS = 'POOLING_TASKS = ("embed", "token_embed")\n'


def install(root: Path) -> Path:
    """Creates the package under `root`, which goes first on PYTHONPATH."""
    package = root / "vllm" / "engine"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "__init__.py").write_text(ENGINE, "utf-8")
    (package / "arg_utils.py").write_text(ARGUMENTS, "utf-8")
    (package.parent / "config.py").write_text(CONFIG, "utf-8")
    (package.parent / "tasks.py").write_text(TASKS, "utf-8")
    return root
