"""Runs lm-evaluation-harness: `run_lm_eval.py JOB`, in an interpreter that has it, nothing of ours.

What it has asked already is in `work_dir/answers.jsonl`, and is not asked again.
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
PLACE = "<image>"


class Served(LocalChatCompletion):  # type: ignore[misc]
    """The served model, with every picture of a question in its place, and a memory."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(
            model=job["model"],
            base_url=f"{job['url']}/v1/chat/completions",
            # One at a time would take another path, which `amodel_call` is not on.
            num_concurrent=max(2, job["concurrency"]),
            max_images=MAX_IMAGES,
            timeout=3600,
        )
        self._path = Path(job["work_dir"], "answers.jsonl")
        self._known = dict(remembered(self._path))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, unless a question would lose pictures on the way."""
        most = max(len(request.args[2]["visual"]) for request in requests)
        if most > MAX_IMAGES:
            raise SystemExit(f"a question has {most} pictures, {MAX_IMAGES} is the most")
        answers: list[str] = super().generate_until(requests, disable_tqdm)
        return answers

    def create_message(self, messages: list[Any], generate: bool = False) -> list[dict[str, Any]]:
        """The chat with its pictures where the text has `<image>`."""
        chat: list[dict[str, Any]] = super().create_message(messages, generate)
        for message in chat:
            if isinstance(message["content"], list):
                message["content"] = in_their_places(message["content"])
        return chat

    async def amodel_call(self, session: Any, sem: Any, messages: list[Any], **kwargs: Any) -> Any:
        """One answer: remembered, or asked for and written down."""
        settings = json.dumps(kwargs.get("gen_kwargs"), sort_keys=True, default=str)
        key = hashlib.sha256(f"{messages[0].prompt}{settings}".encode()).hexdigest()
        if key not in self._known:
            answers = await super().amodel_call(session, sem, messages, **kwargs)
            self._known[key] = answers
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, answers], ensure_ascii=False) + "\n")
        return self._known[key]


def remembered(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The answers of an interrupted run; the line it was interrupted in is dropped."""
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    path.write_text("".join(whole), "utf-8")
    for line in whole:
        key, answers = json.loads(line)
        yield key, answers


def in_their_places(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pictures, which come first, put where the text has a place for each.

    Left in the text, a place is read as words by one model and as a second picture by another.
    """
    pictures = [part for part in parts if part["type"] != "text"]
    texts = "".join(part["text"] for part in parts if part["type"] == "text").split(PLACE)
    if len(texts) == 1:
        return parts
    if len(texts) != len(pictures) + 1:
        raise SystemExit(f"{len(pictures)} pictures for {len(texts) - 1} places in the text")
    placed: list[dict[str, Any]] = []
    for text, picture in zip(texts, [*pictures, None], strict=True):
        placed += [{"type": "text", "text": text}] if text else []
        placed += [picture] if picture else []
    return placed


def main(job: dict[str, Any]) -> None:
    """Asks, and writes `result.json`."""
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
    """Knows our tasks, and lm-eval's thousands where one of them is asked for."""
    ours = Path(__file__).parent / "lm_eval_tasks"
    is_ours = (ours / f"{benchmark}.yaml").is_file()
    return TaskManager(include_path=str(ours), include_defaults=not is_ours)


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
    """Writes a file that is there in full or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text("utf-8")))
