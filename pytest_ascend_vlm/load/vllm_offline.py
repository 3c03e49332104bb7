"""Drives `vllm bench latency` and `vllm bench throughput` of the installed vLLM.

Run as `python -m pytest_ascend_vlm.load.vllm_offline JOB`. A job is a JSON file:

* `tool`: "latency" or "throughput";
* `model`, `name`: the checkpoint's directory, and the model's name for the printed command;
* `serve`: the serve arguments; those that no offline engine takes are left out;
* `batch`, `batches`, `warmups`: requests of a batch, and number of measured and unmeasured batches;
* `input_tokens`, `output_tokens`: of each request;
* `result`: the file to write `generator`, `command` and `batches` to.

The engine, the batches and the clock are the tool's own. The prompts are random tokens of the
suite: the tools draw tokens that a small vocabulary does not have, or that stand for an image.
"""

from __future__ import annotations

import functools
import importlib
import json
import shlex
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..engines import torch_companions
from ..engines.vllm.arguments import command_line
from ..engines.vllm.engine_arguments import engine_arguments
from ..writing import write_atomically

_LARGEST_TOKEN = 10_000


def main(argv: list[str]) -> int:
    """Runs the job in the file `argv[0]`."""
    job = json.loads(Path(argv[0]).read_text("utf-8"))
    torch_companions.install()
    import vllm

    tool = importlib.import_module(f"vllm.benchmarks.{job['tool']}")
    parser = _parser()
    tool.add_cli_args(parser)
    words = [*_conditions(job, parser._option_string_actions), *command_line(_engine(job))]
    answered: list[dict[str, Any]] = []
    _feed(vllm.LLM, job, answered)
    measured = Path(job["result"]).with_suffix(".tool.json")
    tool.main(parser.parse_args(["--model", job["model"], *words, "--output-json", str(measured)]))
    seconds = _seconds(json.loads(measured.read_text("utf-8")))
    command = ["vllm", "bench", job["tool"]]
    document = {
        "generator": " ".join([*command, vllm.__version__]),
        "command": shlex.join([*command, "--model", job["name"], *words]),
        # The last batches: those before them were the warm-up.
        "batches": [
            {"seconds": took, **counts}
            for took, counts in zip(seconds, answered[-len(seconds) :], strict=True)
        ],
    }
    write_atomically(Path(job["result"]), json.dumps(document).encode())
    return 0


def _parser() -> Any:
    """The parser of vLLM; it moved after 0.11."""
    try:
        module = importlib.import_module("vllm.utils.argparse_utils")
    except ModuleNotFoundError:
        module = importlib.import_module("vllm.utils")
    return module.FlexibleArgumentParser()


def _conditions(job: Mapping[str, Any], known: Container[str]) -> list[str]:
    """The options of the tool, as far as it is no option of the engine."""
    # With --random-input-len, whose default is 1024, the tool ignores --input-len.
    kind = "--random-{}-len" if "--random-input-len" in known else "--{}-len"
    lengths = [
        *(kind.format("input"), str(job["input_tokens"])),
        *(kind.format("output"), str(job["output_tokens"])),
    ]
    if job["tool"] == "throughput":
        return ["--dataset-name", "random", *lengths, "--num-prompts", str(job["batch"])]
    iterations = ["--num-iters", str(job["batches"]), "--num-iters-warmup", str(job["warmups"])]
    return [*lengths, "--batch-size", str(job["batch"]), *iterations]


def _engine(job: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the engine."""
    engine = engine_arguments(job["serve"])
    if job["tool"] == "latency":
        # The tool sends the same prompts in each batch, so it leaves the prefix cache off.
        engine.pop("enable_prefix_caching", None)
    return engine


def _feed(llm_class: Any, job: Mapping[str, Any], answered: list[dict[str, Any]]) -> None:
    """Gives each call of `LLM.generate` the suite's prompts, and records its tokens.

    They are drawn when the engine is built: the tool's clock runs during a call.
    """
    build, generate = llm_class.__init__, llm_class.generate
    own: list[dict[str, Any]] = []

    @functools.wraps(build)
    def built(llm: Any, *arguments: Any, **options: Any) -> None:
        build(llm, *arguments, **options)
        own[:] = _prompts(llm.get_tokenizer(), job["batch"], job["input_tokens"])

    @functools.wraps(generate)
    def fed(llm: Any, prompts: Any, *more: Any, **options: Any) -> Any:
        # The same prompts in each call: the batches of the tool are equal.
        outputs = generate(llm, own[: len(prompts)], *more, **options)
        answered.append(
            {
                "input_tokens": [len(output.prompt_token_ids) for output in outputs],
                "output_tokens": [len(output.outputs[0].token_ids) for output in outputs],
            }
        )
        return outputs

    llm_class.__init__, llm_class.generate = built, fed


def _prompts(tokenizer: Any, count: int, length: int) -> list[dict[str, Any]]:
    drawn = np.random.default_rng(0).choice(_tokens(tokenizer), (count, length))
    return [{"prompt_token_ids": ids} for ids in drawn.tolist()]


def _tokens(tokenizer: Any) -> list[int]:
    """The tokens of ordinary text below the largest that the tools draw."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return [token for token in range(min(len(tokenizer), _LARGEST_TOKEN)) if token not in special]


def _seconds(measured: Mapping[str, Any]) -> list[float]:
    """The seconds of each batch in the tool's own result."""
    return measured["latencies"] if "latencies" in measured else [measured["elapsed_time"]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
