"""Drives `vllm bench serve`, the load generator of the installed vLLM, with the suite's requests.

Run as `python -m pytest_ascend_vlm.load.vllm_bench JOB`. JOB is a JSON file:

* `rows`: a JSONL file, a request a line: `content`, the parts of the user's message, and
  `output_tokens`, the most to generate;
* `result`: the file that gets the tool's own result, with its details;
* `url`, `model`: what is asked; the key is in the environment, `OPENAI_API_KEY`;
* `concurrency`, `ramp`: as `load.Workload` has them.

The rows are those of the tool's data set `custom_image`. It reads them here instead of by itself,
because its data sets differ between its versions, put the text before the images, or give all
requests one length. Sending, timing and counting are the tool's own.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..engines import torch_companions

TOOL = "vllm bench serve"
UNCOUNTED = "the stream ended without the number of its tokens"
_BACKEND = "openai-chat"


def is_installed(package: str = "vllm", module: str = "benchmarks/serve.py") -> bool:
    """Whether a package has a module; neither is imported, which takes seconds."""
    found = importlib.util.find_spec(package)
    roots = found.submodule_search_locations if found else None
    return any((Path(root) / module).is_file() for root in roots or ())


def read_rows(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The requests of a job."""
    return [json.loads(line) for line in Path(job["rows"]).read_text("utf-8").splitlines()]


def main(argv: list[str]) -> int:
    """Does the job in the file `argv[0]`."""
    job = json.loads(Path(argv[0]).read_text("utf-8"))
    torch_companions.install()
    import vllm
    from vllm.benchmarks import serve

    parser = argparse.ArgumentParser()
    serve.add_cli_args(parser)
    arguments, unknown = parser.parse_known_args(_arguments(job, vllm.__version__))
    if unknown:
        sys.exit(f"{TOOL} of vLLM {vllm.__version__} does not know {' '.join(unknown)}.")
    _feed(serve, job)
    serve.main(arguments)
    return 0


def _arguments(job: Mapping[str, Any], version: str) -> list[str]:
    result = Path(job["result"])
    return [
        *("--backend", _BACKEND, "--base-url", job["url"], "--endpoint", "/v1/chat/completions"),
        *("--model", job["model"], "--served-model-name", job["model"], "--skip-tokenizer-init"),
        *("--dataset-name", "custom", "--dataset-path", job["rows"], "--temperature", "0"),
        *("--max-concurrency", str(job["concurrency"]), "--ready-check-timeout-sec", "0"),
        *("--save-result", "--save-detailed"),
        *("--result-dir", str(result.parent), "--result-filename", result.name),
        *("--metadata", f"generator={TOOL} {version}"),
    ]


def _feed(serve: Any, job: Mapping[str, Any]) -> None:
    """Puts the job's requests, and the rate at which they are sent, into the tool."""
    requests = [_request(serve.SampleRequest, row) for row in read_rows(job)]
    serve.get_samples = lambda *_, **__: requests
    ask = functools.partial(serve.ASYNC_REQUEST_FUNCS[_BACKEND], mm_position="first")
    serve.ASYNC_REQUEST_FUNCS[_BACKEND] = functools.partial(_ask, ask)
    if job["ramp"]:
        serve.get_request = functools.partial(_ramp, serve.get_request, job["ramp"])


def _request(sample: Callable[..., Any], row: Mapping[str, Any]) -> Any:
    *media, text = row["content"]
    # A length of 0 stays 0 until the server tells the true one.
    return sample(
        prompt=text["text"],
        prompt_len=0,
        expected_output_len=row["output_tokens"],
        multi_modal_data=media or None,
    )


async def _ask(ask: Callable[..., Any], **request: Any) -> Any:
    """One request; the tool takes a stream that broke off for an answer, this does not."""
    output = await ask(**request)
    if output.success and not output.output_tokens:
        output.success, output.error = False, UNCOUNTED
    return output


def _ramp(get_request: Callable[..., Any], rates: list[float], requests: Any, *_: Any) -> Any:
    """The tool's own ramp; its command line knows whole requests a second only."""
    start, end = rates
    return get_request(requests, float("inf"), 1.0, "linear", start, end)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
