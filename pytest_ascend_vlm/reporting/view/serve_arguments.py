"""What the arguments of a serve command are for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from ..phrase import Phrase, phrase
from .environment import Item
from .serve_command import ServeCommand

PURPOSES: Mapping[str, Phrase] = {
    "--host": phrase("address that the server listens on; 0.0.0.0: every address of the host"),
    "--port": phrase("port of the API"),
    "--dtype": phrase("data type of the weights and of the computation"),
    "--max-model-len": phrase("longest sequence in tokens, prompt and answer together"),
    "--max-num-seqs": phrase("largest number of requests in one step"),
    "--max-num-batched-tokens": phrase("largest number of tokens in one step"),
    "--gpu-memory-utilization": phrase("share of the device memory that vLLM may use"),
    "--seed": phrase("seed of the random numbers"),
    "--trust-remote-code": phrase("lets code in the checkpoint run"),
    "--enforce-eager": phrase("no graphs: the operators are launched one by one"),
    "--no-enforce-eager": phrase("graphs are captured (ACL graphs on an NPU)"),
    "--compilation-config": phrase("compilation and capture of graphs (ACL graphs on an NPU)"),
    "--additional-config": phrase("settings of vLLM-Ascend"),
    "--async-scheduling": phrase("prepares the next step while the device computes"),
    "--no-async-scheduling": phrase("prepares the next step when the device has finished"),
    "--enable-prefix-caching": phrase("keeps the KV cache of equal beginnings of prompts"),
    "--no-enable-prefix-caching": phrase("computes every prompt from its beginning"),
    "--enable-chunked-prefill": phrase("computes a long prompt in several steps"),
    "--no-enable-chunked-prefill": phrase("computes each prompt in one step"),
    "--limit-mm-per-prompt": phrase("largest number of images and videos in a prompt; 0: none"),
    "--mm-processor-kwargs": phrase("arguments of the image processor: the number of pixels"),
    "--mm-encoder-tp-mode": phrase("how the vision encoder is divided among the cards"),
    "--enable-auto-tool-choice": phrase("the model may call functions of a request by itself"),
    "--tool-call-parser": phrase("the form in which the model writes calls of functions"),
    "--tensor-parallel-size": phrase("number of cards that share each layer"),
    "--data-parallel-size": phrase("number of copies of the model"),
    "--quantization": phrase("quantization of the weights"),
    "--speculative-config": phrase("speculative decoding: the draft method and its tokens"),
}
"""Argument as a serve command has it -> what it is for."""


def purposes(serve: ServeCommand) -> Iterator[Item]:
    """The arguments of the printed command, each with its value, that have a known purpose."""
    for flag in serve.printed:
        if flag[0] in PURPOSES:
            yield Item(shlex.join(flag), PURPOSES[flag[0]])
