"""A fake package `vllm` with the tools `vllm bench latency` and `throughput`, in two layouts.

`layout="0.11"` has the parser in `vllm.utils` and knows `--input-len` alone. `layout="0.32"` has it
in `vllm.utils.argparse_utils`, and `throughput` ignores `--input-len` for `--random-input-len`,
whose default is 1024. The tools give the engine prompts of their own, as the real ones do.

The environment variable FAKE_BENCH chooses a defect: "ends-early" (answers of three tokens), "dies"
(the process ends), "hangs", "no-json" (the tool writes nothing). With "unhurried" the progress bar
of `latency` shows two batches for some seconds.
"""

from __future__ import annotations

from pathlib import Path

ENGINE = """
import os, time
from types import SimpleNamespace

__version__ = "{layout}.0"

class SamplingParams:
    def __init__(self, max_tokens):
        self.max_tokens = max_tokens

class Tokenizer:
    all_special_ids = [0, 1]
    def get_added_vocab(self): return {{"<|image_pad|>": 2}}
    def __len__(self): return 40

class LLM:
    def __init__(self, arguments):
        behaviour = self.behaviour = os.environ.get("FAKE_BENCH")
        print("engine", vars(arguments), flush=True)
        if behaviour == "dies":
            print("Segmentation fault in a kernel", flush=True)
            os._exit(139)
        if behaviour == "hangs":
            print("pid", os.getpid(), flush=True)
            time.sleep(600)

    def get_tokenizer(self):
        print("asked for the tokenizer", flush=True)
        return Tokenizer()

    def generate(self, prompts, sampling_params, use_tqdm=True):
        lengths = {{len(prompt["prompt_token_ids"]) for prompt in prompts}}
        tokens = {{token for prompt in prompts for token in prompt["prompt_token_ids"]}}
        print("prompts", len(prompts), *lengths, min(tokens), max(tokens), flush=True)
        count = 3 if self.behaviour == "ends-early" else sampling_params.max_tokens
        answer = SimpleNamespace(token_ids=[9] * count)
        return [
            SimpleNamespace(prompt_token_ids=prompt["prompt_token_ids"], outputs=[answer])
            for prompt in prompts
        ]
"""
ARGUMENTS = """
import dataclasses

@dataclasses.dataclass
class EngineArgs:
    model: str = ""
    seed: int = 0
    enable_prefix_caching: bool | None = None

def add_to(parser):
    parser.add_argument("--model")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--enable-prefix-caching", action="store_true", default=None)
"""
PARSER = "from argparse import ArgumentParser as FlexibleArgumentParser\n"
LATENCY = """
import json, time
from vllm.engine.arg_utils import add_to

def add_cli_args(parser):
    for name in ("input-len", "output-len", "batch-size", "num-iters", "num-iters-warmup"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--output-json")
    add_to(parser)

def main(args):
    from vllm import LLM, SamplingParams

    llm = LLM(args)
    prompts = [{"prompt_token_ids": [9999] * args.input_len}] * args.batch_size
    print("the clock starts", flush=True)
    for _ in range(args.num_iters_warmup + args.num_iters):
        llm.generate(prompts, sampling_params=SamplingParams(args.output_len), use_tqdm=False)
    if llm.behaviour == "unhurried":
        print(f"Bench iterations: 67%|##| 2/{args.num_iters} [", flush=True)
        time.sleep(5)
    seconds = [0.5 + 0.1 * number for number in range(args.num_iters)]
    if llm.behaviour != "no-json":
        with open(args.output_json, "w") as file:
            json.dump({"avg_latency": sum(seconds) / len(seconds), "latencies": seconds}, file)
"""
THROUGHPUT = """
import json
from vllm.engine.arg_utils import add_to

IS_OLD = {is_old}

def add_cli_args(parser):
    parser.add_argument("--dataset-name")
    for name in ("input-len", "output-len", "num-prompts"):
        parser.add_argument(f"--{{name}}", type=int)
    if not IS_OLD:
        parser.add_argument("--random-input-len", type=int, default=1024)
        parser.add_argument("--random-output-len", type=int, default=128)
    parser.add_argument("--output-json")
    add_to(parser)

def main(args):
    from vllm import LLM, SamplingParams

    assert args.dataset_name == "random"
    inputs, outputs = args.input_len, args.output_len
    if not IS_OLD:
        inputs, outputs = args.random_input_len, args.random_output_len
    llm = LLM(args)
    prompts = [{{"prompt_token_ids": [9999] * inputs}}] * args.num_prompts
    llm.generate(prompts, SamplingParams(outputs), use_tqdm=True)
    with open(args.output_json, "w") as file:
        json.dump({{"elapsed_time": 2.0, "num_requests": args.num_prompts}}, file)
"""


def install(root: Path, layout: str = "0.32") -> Path:
    """Creates the package under `root`, which goes first on PYTHONPATH."""
    is_old = layout == "0.11"
    package = root / "vllm"
    files = {
        "__init__.py": ENGINE.format(layout=layout),
        "engine/__init__.py": "",
        "engine/arg_utils.py": ARGUMENTS,
        "utils/__init__.py": PARSER if is_old else "",
        **({} if is_old else {"utils/argparse_utils.py": PARSER}),
        "benchmarks/__init__.py": "",
        "benchmarks/latency.py": LATENCY,
        "benchmarks/throughput.py": THROUGHPUT.format(is_old=is_old),
    }
    for name, content in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    return root
