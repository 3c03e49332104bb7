"""Drives `evalscope perf`, the load generator for hosts without vLLM.

Run as `python -m pytest_ascend_vlm.load.evalscope_perf JOB`; `job` describes the job file. The
tool's own files go into `<result>.evalscope/`. The tool stores the answers' texts only in a pickle.
Therefore this module records each measurement itself, in the columns of `vllm bench serve`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..writing import write_atomically
from .job import UNCOUNTED, has_module, read_rows

TOOL = "evalscope perf"
REQUIREMENT = "evalscope[perf]>=1.14"


def is_installed() -> bool:
    """True if the installed EvalScope contains the tool."""
    return has_module("evalscope", "perf/core/http_client.py")


def main(argv: list[str]) -> int:
    """Runs the job in the file `argv[0]`."""
    job = json.loads(Path(argv[0]).read_text("utf-8"))
    import evalscope
    from evalscope.perf.arguments import Arguments
    from evalscope.perf.core.http_client import AioHttpClient
    from evalscope.perf.main import run_perf_benchmark

    result = Path(job["result"])
    directory = result.with_suffix(".evalscope")
    shutil.rmtree(directory, ignore_errors=True)  # the tool refuses to write into an existing one
    outputs: list[Any] = []
    AioHttpClient.post = _recorded(AioHttpClient.post, outputs)
    run_perf_benchmark(Arguments(**_arguments(job, directory)))
    document = {"generator": f"{TOOL} {evalscope.__version__}", **_document(outputs)}
    write_atomically(result, json.dumps(document).encode())
    return 0


def _arguments(job: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    rows = read_rows(job)
    bodies = (_body(row, job["extra"]) for row in rows)
    requests = directory / "requests.jsonl"
    write_atomically(requests, "".join(f"{json.dumps(body)}\n" for body in bodies).encode())
    return {
        "api": "openai",
        "url": f"{job['url']}/v1/chat/completions",
        "model": job["model"],
        "api_key": os.environ["OPENAI_API_KEY"] or None,
        "dataset": "line_by_line",
        "dataset_path": str(requests),
        "parallel": job["concurrency"],
        "number": len(rows),
        "rate": job["rate"] or -1,
        "no_test_connection": True,
        "outputs_dir": str(directory),
        "no_timestamp": True,
    }


def _body(row: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "messages": row["messages"],
        "max_tokens": row["output_tokens"],
        "temperature": 0,
        **extra,
    }


def _recorded(post: Callable[..., Any], outputs: list[Any]) -> Callable[..., Any]:
    """Wraps the tool's function that sends a request; stores its outputs in the order sent."""

    async def recorded(client: Any, body: Any) -> Any:
        index = len(outputs)
        outputs.append(None)
        output = await post(client, body)
        if output.success and not output.completion_tokens:
            output.success, output.error = False, UNCOUNTED
        outputs[index] = output
        return output

    return recorded


def _document(outputs: list[Any]) -> dict[str, Any]:
    """The measurements in seconds, in the columns of `vllm bench serve`."""
    ends = [
        one.start_time + one.first_chunk_latency + sum(one.inter_chunk_latency) for one in outputs
    ]
    return {
        "duration": max(ends) - min(one.start_time for one in outputs),
        "ttfts": [one.first_chunk_latency for one in outputs],
        "itls": [one.inter_chunk_latency for one in outputs],
        "input_lens": [one.prompt_tokens or 0 for one in outputs],
        "output_lens": [one.completion_tokens or 0 for one in outputs],
        "generated_texts": [one.generated_text for one in outputs],
        "errors": ["" if one.success else one.error or "failed" for one in outputs],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
