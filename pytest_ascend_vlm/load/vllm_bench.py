"""Drives `vllm bench serve`, the load generator of the installed vLLM, with the suite's requests.

Run as `python -m pytest_ascend_vlm.load.vllm_bench JOB`; `job` describes the job file. The result
file is the tool's own, with its details (`--save-detailed`).

This module passes the requests to the tool instead of letting it read a data set: the tool's data
sets differ between its versions, put the text before the images, or give all requests the same
output length. Sending, timing and counting are the tool's own.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..engines import torch_companions
from .job import UNCOUNTED, has_module, read_rows

TOOL = "vllm bench serve"
_BACKEND = "openai-chat"


def is_installed() -> bool:
    """True if the installed vLLM contains the tool."""
    return has_module("vllm", "benchmarks/serve.py")


def main(argv: list[str]) -> int:
    """Runs the job in the file `argv[0]`."""
    job = json.loads(Path(argv[0]).read_text("utf-8"))
    torch_companions.install()
    import vllm
    from vllm.benchmarks import serve

    parser = argparse.ArgumentParser()
    serve.add_cli_args(parser)
    arguments, unknown = parser.parse_known_args(_arguments(job, vllm.__version__))
    if unknown:
        sys.exit(f"{TOOL} of vLLM {vllm.__version__} does not know {' '.join(unknown)}.")
    feed(serve, job)
    serve.main(arguments)
    return 0


def _arguments(job: Mapping[str, Any], version: str) -> list[str]:
    result = Path(job["result"])
    return [
        *("--backend", _BACKEND, "--base-url", job["url"], "--endpoint", "/v1/chat/completions"),
        *("--model", job["model"], "--served-model-name", job["model"]),
        *("--dataset-name", "custom", "--dataset-path", job["rows"], "--temperature", "0"),
        *("--max-concurrency", str(job["concurrency"]), "--ready-check-timeout-sec", "0"),
        *(("--request-rate", str(job["rate"])) if job["rate"] else ()),
        *("--save-result", "--save-detailed"),
        *("--result-dir", str(result.parent), "--result-filename", result.name),
        *("--metadata", f"generator={TOOL} {version}"),
    ]


def feed(serve: Any, job: Mapping[str, Any]) -> None:
    """Replaces the tool's requests, and its request rate, by those of the job."""
    requests = [_request(serve.SampleRequest, row) for row in read_rows(job)]
    serve.get_samples = lambda *_, **__: requests
    # The server counts the tokens. Releases before 0.18 cannot be told to do without a tokenizer.
    serve.get_tokenizer = lambda *_, **__: None
    send = serve.ASYNC_REQUEST_FUNCS[_BACKEND]
    serve.ASYNC_REQUEST_FUNCS[_BACKEND] = functools.partial(_send, send, job["extra"])
    if job["ramp"]:
        serve.get_request = functools.partial(_ramp, serve.get_request, job["ramp"])


def _request(sample_request: Callable[..., Any], row: Mapping[str, Any]) -> Any:
    # The tool replaces a prompt length of 0 by the one that the server reports. It passes what it
    # takes for images on to `_send`.
    return sample_request(
        prompt="",
        prompt_len=0,
        expected_output_len=row["output_tokens"],
        multi_modal_data=row["messages"],
    )


async def _send(
    send: Callable[..., Any], extra: Mapping[str, Any], request_func_input: Any, **context: Any
) -> Any:
    """Sends one request. A stream that broke off is an error; the tool counts it as a success."""
    # Not every version has an option for each of these parameters, and none has for messages.
    request_func_input.extra_body = {
        **(request_func_input.extra_body or {}),
        **extra,
        "messages": request_func_input.multi_modal_content,
    }
    output = await send(request_func_input=request_func_input, **context)
    if output.success and not output.output_tokens:
        output.success, output.error = False, UNCOUNTED
    return output


def _ramp(get_request: Callable[..., Any], rates: list[float], requests: Any, *_: Any) -> Any:
    """The tool's own linear ramp; its command line accepts only whole requests per second."""
    start, end = rates
    return get_request(requests, float("inf"), 1.0, "linear", start, end)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
