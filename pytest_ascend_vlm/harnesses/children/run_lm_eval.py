"""Runs lm-evaluation-harness: `run_lm_eval.py JOB`. Its interpreter does not have this package.

Answers of an interrupted run are in `work_dir/answers.jsonl`; their samples are not asked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm_eval import __version__, simple_evaluate
from lm_eval.models.openai_completions import LocalChatCompletion
from lm_eval.tasks import TaskManager
from pyarrow import parquet

MAX_IMAGES = 16
PLACEHOLDER = "<image>"


class Served(LocalChatCompletion):  # type: ignore[misc]
    """The served model: puts every image where the question refers to it, and stores answers."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(
            model=job["model"],
            base_url=f"{job['url']}/v1/chat/completions",
            # With a concurrency of 1 lm-eval does not call `amodel_call`.
            num_concurrent=max(2, job["concurrency"]),
            max_images=MAX_IMAGES,
            timeout=3600,
        )
        self._path = Path(job["work_dir"], "answers.jsonl")
        self._answers = dict(stored_answers(self._path))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers the requests; exits if lm-eval would drop images of a question."""
        images = max(len(request.args[2]["visual"]) for request in requests)
        if images > MAX_IMAGES:
            raise SystemExit(f"a question has {images} images; the maximum is {MAX_IMAGES}")
        answers: list[str] = super().generate_until(requests, disable_tqdm)
        return answers

    def create_message(self, messages: list[Any], generate: bool = False) -> list[dict[str, Any]]:
        """The chat, with each image in the place of its `<image>` in the text."""
        chat: list[dict[str, Any]] = super().create_message(messages, generate)
        for message in chat:
            if isinstance(message["content"], list):
                message["content"] = interleaved(message["content"])
        return chat

    async def amodel_call(self, session: Any, sem: Any, messages: list[Any], **kwargs: Any) -> Any:
        """Returns a stored answer, or requests and stores it."""
        settings = json.dumps(kwargs.get("gen_kwargs"), sort_keys=True, default=str)
        key = hashlib.sha256(f"{messages[0].prompt}{settings}".encode()).hexdigest()
        if key not in self._answers:
            answers = await super().amodel_call(session, sem, messages, **kwargs)
            self._answers[key] = answers
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, answers], ensure_ascii=False) + "\n")
        return self._answers[key]


def stored_answers(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The answers of an interrupted run; removes an incomplete last line."""
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    complete = [line for line in lines if line.endswith("\n")]
    path.write_text("".join(complete), "utf-8")
    for line in complete:
        key, answers = json.loads(line)
        yield key, answers


def interleaved(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Moves each image from the start of a message to its placeholder in the text.

    A placeholder left in the text is read as words by one model and as a second image by another.
    """
    images = [part for part in parts if part["type"] != "text"]
    texts = "".join(part["text"] for part in parts if part["type"] == "text").split(PLACEHOLDER)
    if len(texts) == 1:
        return parts
    if len(texts) != len(images) + 1:
        raise SystemExit(f"{len(images)} images for {len(texts) - 1} placeholders in the text")
    placed: list[dict[str, Any]] = []
    for text, image in zip(texts, [*images, None], strict=True):
        placed += [{"type": "text", "text": text}] if text else []
        placed += [image] if image else []
    return placed


def main(job: dict[str, Any]) -> None:
    """Runs the data set and writes `result.json`."""
    os.environ["OPENAI_API_KEY"] = os.environ["VLM_HARNESS_API_KEY"]
    work_dir = Path(job["work_dir"])
    rows = [parquet.read_metadata(file).num_rows for file in job["files"]]
    write(work_dir / "asked.json", {"asked": sum(min(n, job["limit"] or n) for n in rows)})
    found = simple_evaluate(
        model=Served(job),
        tasks=[job["benchmark"]],
        task_manager=task_manager(job["benchmark"]),
        apply_chat_template=True,
        limit=job["limit"],
        bootstrap_iters=0,
    )
    result = {
        "version": __version__,
        "reported": float(found["results"][job["benchmark"]][f"{job['metric']},none"]),
        "total": sum(rows),
        "samples": list(samples(found["samples"], job["metric"])),
    }
    write(work_dir / "result.json", result)


def task_manager(benchmark: str) -> TaskManager:
    """Loads the tasks of `lm_eval_tasks`; lm-eval's thousands only if the benchmark is one."""
    local = Path(__file__).parent / "lm_eval_tasks"
    is_local = (local / f"{benchmark}.yaml").is_file()
    return TaskManager(include_path=str(local), include_defaults=not is_local)


def samples(logged: dict[str, list[dict[str, Any]]], metric: str) -> Iterator[dict[str, Any]]:
    """Every scored sample."""
    for task, rows in logged.items():
        for row in rows:
            yield {
                "id": f"{task}/{row['doc_id']}",
                "category": task,
                "score": float(row[metric]),
                "prompt": row["prompt_hash"][:16],
                "answer": str(row["filtered_resps"][0]),
                "target": str(row["target"]),
            }


def write(path: Path, document: dict[str, Any]) -> None:
    """Writes a JSON file atomically."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
