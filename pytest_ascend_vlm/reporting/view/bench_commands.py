"""The commands of `vllm bench` that repeat the measured workloads without the suite."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ...criteria.criterion import WORKLOAD
from ..phrase import phrase
from .deployment import Deployment
from .environment import Item
from .rows import Json, Rows, evidence, of
from .serve_command import PORT

_OPTIONS = {
    "input_tokens": "--random-input-len",
    "output_tokens": "--random-output-len",
    "requests": "--num-prompts",
    "concurrency": "--max-concurrency",
    "request_rate": "--request-rate",
}
"""Field of a workload -> the option of `vllm bench serve` in every release from 0.11 on."""

_OWN_CODE = ("--trust-remote-code",)


def bench_commands(model: Json, rows: Rows, served: Deployment, receipt: Json) -> Iterator[Item]:
    """The commands of the workloads that were measured; those with pages have none.

    The suite sent prompts of its own, and maybe served a tiny checkpoint.
    """
    told = phrase("workload {name}; typed, it sends random prompts of vllm bench, not the suite's")
    if receipt["checkpoint"] == "tiny":
        told = phrase(
            "workload {name}; typed, it sends random prompts of vllm bench, not the suite's, and "
            "measures the real model, not the tiny checkpoint"
        )
    declared = {one["name"]: one for one in model.get("workloads") or ()}
    for row in of(rows, WORKLOAD):
        if command := _offline(row, served) or _to_server(row, declared, served):
            yield Item(told.of(name=row["case"]), command)


def _offline(row: Json, served: Deployment) -> str | None:
    """The command that measured an offline engine, with the variables of the deployment."""
    command = evidence(row).get("command")
    exports = served.serve.exports if served.serve else ""
    return "\n".join(filter(None, (exports, str(command)))) if command else None


def _to_server(row: Json, declared: Json, served: Deployment) -> str | None:
    """The command that sends texts of the same lengths to the deployment, in the same way.

    They are completions, because a chat's template comes on top of the length.
    """
    load = declared.get(row["case"])
    is_measured = bool(evidence(row).get("conditions"))
    if load is None or not is_measured or load.get("image_tokens") or not load.get("input_tokens"):
        return None
    words = ["vllm", "bench", "serve", "--model", row["model"]]
    if served.served_name != row["model"]:
        words += ["--served-model-name", served.served_name]
    if served.serve and _OWN_CODE in served.serve.flags:
        words += _OWN_CODE  # of the tokenizer
    words += ["--backend", "openai", "--endpoint", "/v1/completions", "--port", str(PORT)]
    words += ["--dataset-name", "random", "--ignore-eos", "--temperature", "0"]
    for field, option in _OPTIONS.items():
        if load.get(field) is not None:
            words += [option, str(load[field])]
    return shlex.join(words)
