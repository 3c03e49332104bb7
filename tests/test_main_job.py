"""The main job on this machine's CPU, with real vLLM: what the README promises."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CPU = ("--vlm-platform=cpu", "--vlm-checkpoint=tiny")

pytestmark = pytest.mark.vllm


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def judged(report: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    done = run("-m", "pytest", "conformance", *CPU, f"--vlm-report={report}", *arguments)
    return done, json.loads((report / "report.json").read_text("utf-8"))


def test_conformance_is_green_and_nothing_was_skipped(tmp_path: Path) -> None:
    done, document = judged(tmp_path, f"--vlm-log-dir={tmp_path / 'logs'}")
    statuses = Counter(row["status"] for row in document["rows"])

    assert done.returncode == 0, done.stdout
    assert set(statuses) <= {"pass", "xfail"}
    assert len(document["rows"]) >= 30
    assert len({row["criterion"] for row in document["rows"]}) >= 18
    assert document["receipt"]["server_starts"] == 2, "one server, and one for determinism.restart"
    assert "not an NPU" in done.stdout.splitlines()[-1]
    assert (tmp_path / "adaptation.zh.md").read_text("utf-8").startswith("# CPU")


def test_one_case_alone_starts_one_server(tmp_path: Path) -> None:
    done, document = judged(tmp_path, "-k", "capital", f"--vlm-log-dir={tmp_path / 'logs'}")

    assert done.returncode == 0, done.stdout
    assert document["receipt"]["server_starts"] == 1
    assert {row["case"] for row in document["rows"]} == {"text/capital", "text/capital-zh"}


def test_harm_is_noticed_and_the_sound_model_is_not_accused() -> None:
    some = ("--defects", "int4 weights", "blank images")  # all of them: tox -e bench
    done = run("benchmarks/defect_detection.py", "--clean-runs=1", *some)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_still_gives_its_goldens() -> None:
    done = run("-m", "pytest", "conformance", "-m", "cpu_baseline", "--vlm-checkpoint=tiny")
    assert done.returncode == 0, done.stdout
    assert "1 of 1 criteria verified on the CPU reference" in done.stdout
