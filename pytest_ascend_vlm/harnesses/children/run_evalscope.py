"""Runs EvalScope: `run_evalscope.py JOB`. Its interpreter does not have this package.

Answers of an interrupted run are under `work_dir/predictions`; their samples are not asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evalscope import TaskConfig, run_task
from evalscope.version import __version__
from pyarrow import parquet


def main(job: dict[str, Any]) -> None:
    """Runs the data set and writes `result.json`."""
    work_dir = Path(job["work_dir"])
    rows = [parquet.read_metadata(file).num_rows for file in job["files"]]
    write(work_dir / "asked.json", {"asked": sum(min(n, job["limit"] or n) for n in rows)})
    report = run_task(config(job))[job["benchmark"]]
    result = {
        "version": __version__,
        "reported": float(report.score),
        "total": sum(rows),
        "samples": list(samples(work_dir, job)),
    }
    write(work_dir / "result.json", result)


def config(job: dict[str, Any]) -> TaskConfig:
    """The job as EvalScope's configuration: greedy, local files, resumed after an interruption."""
    began = any(Path(job["work_dir"], "predictions").rglob("*.jsonl"))
    return TaskConfig(
        model=job["model"],
        api_url=f"{job['url']}/v1",
        api_key=os.environ["VLM_HARNESS_API_KEY"],
        eval_type="openai_api",
        datasets=[job["benchmark"]],
        dataset_args={job["benchmark"]: {"local_path": job["dataset"]}},
        eval_batch_size=job["concurrency"],
        generation_config={"temperature": 0, "max_tokens": job["max_tokens"]},
        limit=job["limit"],
        work_dir=job["work_dir"],
        use_cache=job["work_dir"] if began else None,
        rerun_review=began,  # otherwise stored answers are used only for the same server address
        no_timestamp=True,
    )


def samples(work_dir: Path, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every scored sample, from the reviews that EvalScope computes its score from."""
    for path in sorted((work_dir / "reviews").rglob("*.jsonl")):
        subset = path.stem.removeprefix(f"{job['benchmark']}_")
        for line in path.read_text("utf-8").splitlines():
            review = json.loads(line)
            score = review["sample_score"]["score"]
            yield {
                "id": f"{subset}/{review['index']}",
                "category": subset,
                "score": float(score["value"][job["metric"]]),
                "prompt": prompt_digest(review["messages"]),
                "answer": str(score["prediction"]),
                "target": " | ".join(review["target"] or ()),
            }


def prompt_digest(messages: list[dict[str, Any]]) -> str:
    """Digest of a prompt's text and of the places of its images."""
    asked = []
    for message in messages:
        if message["role"] != "assistant":
            content = message["content"]
            parts = [{"text": content}] if isinstance(content, str) else content
            asked += [part.get("text", "<picture>") for part in parts]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()[:16]


def write(path: Path, document: dict[str, Any]) -> None:
    """Writes a JSON file atomically."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
