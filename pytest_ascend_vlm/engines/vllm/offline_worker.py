"""Runs a model without a server: the same requests in Transformers and in vLLM's offline engine.

Run as `python -m pytest_ascend_vlm.engines.vllm.offline_worker DIRECTORY`. The directory contains
`job.json`. Each task writes `<task>.json` and `<task>.safetensors` there when it ends. A task that
fails writes its error, and the next one runs. All engines share one process, because importing vLLM
takes longer than loading a small model.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ...observation.numerics import FORCED_TOKENS
from ...platforms import select_platform
from ...spec.case import Case
from ...spec.case_files import read_case, write_case
from ...writing import write_atomically
from .. import torch_companions
from ..logprobs import scores
from ..messages import messages
from ..transformers.kept_logits import most_likely
from ..transformers.model import Encoder, Sequence, TransformersModel
from ..transformers.placement import device_names
from .engine_arguments import engine_arguments
from .token_pooling import token_pooling

Arrays = dict[str, npt.NDArray[Any]]
Result = tuple[dict[str, Any], Arrays]
PROGRESS = "[offline] "


@dataclasses.dataclass(frozen=True)
class Job:
    """The tasks to run, and their requests.

    Attributes:
        model_path: the checkpoint's directory.
        trust_remote_code: True if the checkpoint's own code may run.
        platform: name of the platform to run on.
        devices: number of cards that the model needs.
        tasks: names of `TASKS`.
        serve: the serve arguments.
        cases: the requests, each with the answer to force.
    """

    model_path: Path
    trust_remote_code: bool
    platform: str
    devices: int
    tasks: tuple[str, ...]
    serve: Mapping[str, Any]
    cases: tuple[tuple[Case, str], ...]

    def to_json(self) -> dict[str, Any]:
        """Converts the job to JSON for `from_json`."""
        return {
            "model_path": str(self.model_path),
            "trust_remote_code": self.trust_remote_code,
            "platform": self.platform,
            "devices": self.devices,
            "tasks": list(self.tasks),
            "serve": dict(self.serve),
            "cases": [{"case": write_case(case), "answer": answer} for case, answer in self.cases],
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Job:
        """Reads a job from the JSON of `to_json`."""
        cases = tuple(
            (read_case(Path(), entry["case"]), entry["answer"]) for entry in document["cases"]
        )
        return Job(
            Path(document["model_path"]),
            document["trust_remote_code"],
            document["platform"],
            document["devices"],
            tuple(document["tasks"]),
            document["serve"],
            cases,
        )


def main(argv: list[str]) -> int:
    """Runs every task of the job in the directory `argv[0]`."""
    directory = Path(argv[0])
    job = Job.from_json(json.loads((directory / "job.json").read_text("utf-8")))
    if select_platform(job.platform).torch_device == "cpu":
        # Run the engine in this process: on CPU no process exit is needed to free device memory.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # A device that this process has initialized cannot be used in a forked child.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    torch_companions.install()
    engines = Engines(job)
    for task in job.tasks:
        print(f"{PROGRESS}{task.replace('_', ' ')}", flush=True)
        _attempt(directory, task, partial(TASKS[task], engines))
        gc.collect()
    return 0


def _attempt(directory: Path, task: str, work: Callable[[], Result]) -> None:
    """Runs a task. Its JSON is written last, so a task with a JSON file has ended."""
    from safetensors.numpy import save_file

    try:
        document, arrays = work()
        save_file(arrays, directory / f"{task}.safetensors")
        result = json.dumps(document)
    except Exception as error:  # whatever an engine raises; the other tasks still run
        import traceback

        traceback.print_exc()
        result = json.dumps({"error": f"{type(error).__name__}: {error}"})
    write_atomically(directory / f"{task}.json", result.encode("utf-8"))


@dataclasses.dataclass(frozen=True)
class Engines:
    """The engines of a job, with one method per task.

    Attributes:
        job: the job.
    """

    job: Job

    @cached_property
    def encoder(self) -> Encoder:
        """The checkpoint's processor."""
        return Encoder(self.job.model_path, trust_remote_code=self.job.trust_remote_code)

    @cached_property
    def sequences(self) -> list[Sequence]:
        """The requests with their forced answers, encoded on first use: some tasks need none."""
        return [self.encoder.with_answer(case, answer) for case, answer in self.job.cases]

    def transformers(self) -> Result:
        """Runs the checkpoint in Transformers: bf16, eager mode, on the model's devices."""
        platform = select_platform(self.job.platform)
        platform.prepare_torch()
        model = TransformersModel(
            self.job.model_path,
            "bfloat16",
            device_names(platform.torch_device or "cpu", self.job.devices),
            trust_remote_code=self.job.trust_remote_code,
        )
        arrays: Arrays = {}
        for index, sequence in enumerate(self.sequences):
            numbers = model.force(sequence, sequence.positions)
            top = most_likely(numbers.logits, FORCED_TOKENS)
            arrays |= {
                f"{index}.positions": sequence.positions,
                f"{index}.token_ids": top.token_ids,
                f"{index}.values": top.logits,
                f"{index}.hidden": numbers.hidden,
            }
        return {}, arrays

    def chat(self) -> Result:
        """The greedy answers of `LLM.chat`."""
        from vllm import SamplingParams

        sampling = [
            SamplingParams(temperature=0, max_tokens=case.max_tokens) for case, _ in self.job.cases
        ]
        outputs = _engine(self.job).chat(
            [messages(case) for case, _ in self.job.cases], sampling, use_tqdm=False
        )
        answers = [output.outputs[0] for output in outputs]
        texts = [
            {"text": a.text, "token_ids": list(a.token_ids), "finish_reason": a.finish_reason}
            for a in answers
        ]
        return {"answers": texts}, {}

    def hidden_states(self) -> Result:
        """The last hidden state of every token, from the pooling runner."""
        pooling = token_pooling()
        engine = _engine(self.job, **pooling.engine)
        prompts = [self.encoder.vllm_prompt(case, answer) for case, answer in self.job.cases]
        outputs = engine.encode(
            prompts,
            pooling_task=pooling.task,
            tokenization_kwargs={"add_special_tokens": False},
            use_tqdm=False,
        )
        _require_same_tokens(outputs, self.sequences)
        return {}, {f"{i}.hidden": o.outputs.data.float().numpy() for i, o in enumerate(outputs)}

    def float32(self) -> Result:
        """The logits of the same engine in float32, at every position of the forced sequences."""
        from vllm import SamplingParams

        chats = [
            [*messages(case), {"role": "assistant", "content": a}] for case, a in self.job.cases
        ]
        outputs = _engine(self.job, dtype="float32").chat(
            chats,
            SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=FORCED_TOKENS),
            add_generation_prompt=False,
            continue_final_message=True,
            use_tqdm=False,
        )
        _require_same_tokens(outputs, self.sequences)
        arrays: Arrays = {}
        are_logits = []
        for index, output in enumerate(outputs):
            found = scores([_entries(position) for position in output.prompt_logprobs[1:]])
            arrays |= {
                f"{index}.token_ids": found.token_ids,
                f"{index}.values": found.values,
                f"{index}.floor": found.floor,
            }
            are_logits.append(found.are_logits)
        return {"are_logits": are_logits}, arrays


# Transformers is last: it loads the model into the worker, whose exit frees the memory.
TASKS: dict[str, Callable[[Engines], Result]] = {
    "chat": Engines.chat,
    "hidden_states": Engines.hidden_states,
    "float32": Engines.float32,
    "transformers": Engines.transformers,
}


def _entries(position: Mapping[int, Any]) -> dict[str, dict[str, Any]]:
    """One position, in the form of the server's JSON."""
    return {
        str(token): {"logprob": entry.logprob, "rank": entry.rank}
        for token, entry in position.items()
    }


def _engine(job: Job, **changes: Any) -> Any:
    """The offline engine of vLLM, with those serve arguments that are engine arguments."""
    import vllm

    return vllm.LLM(model=str(job.model_path), **{**engine_arguments(job.serve), **changes})


def _require_same_tokens(outputs: list[Any], sequences: list[Sequence]) -> None:
    for output, sequence in zip(outputs, sequences, strict=True):
        if tuple(output.prompt_token_ids) != sequence.token_ids:
            raise ValueError(
                f"{sequence.case_id}: the offline engine encodes the request as "
                f"{len(output.prompt_token_ids)} tokens, the reference as other "
                f"{len(sequence.token_ids)} tokens"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
