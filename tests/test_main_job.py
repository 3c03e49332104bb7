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
WITH_TINY = {
    "TestMinerU25",
    "TestMinerU25CpuTuned",
    "TestInternVL2",
    "TestGlmOcr",
    "TestQwen25VL7B",
    "TestQwen3VL8B",
}

pytestmark = pytest.mark.vllm


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def judged(directory: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    written = (f"--vlm-report={directory / 'report'}", f"--vlm-log-dir={directory / 'logs'}")
    done = run("-m", "pytest", *CPU, *written, *arguments)
    return done, json.loads((directory / "report" / "report.json").read_text("utf-8"))


def test_one_model_meets_every_criterion(tmp_path: Path) -> None:
    done, document = judged(tmp_path, "conformance/test_mineru2_5.py")
    statuses = Counter(row["status"] for row in document["rows"])

    assert done.returncode == 0, done.stdout
    assert set(statuses) <= {"pass", "xfail", "na"}
    assert statuses["pass"] >= 150
    assert document["receipt"]["server_starts"] == 3, "one, one for restart, one for a variant"
    assert "not an NPU" in done.stdout.splitlines()[-1]
    assert (tmp_path / "report" / "adaptation.zh.md").read_text("utf-8").startswith("# CPU")


def test_every_architecture_is_served_once_by_two_workers(tmp_path: Path) -> None:
    some = "ready or models or capital or page-02 or bars-01 or video_is_answered"
    done, document = judged(tmp_path, "conformance", "-n", "2", "-k", some)
    green = {row["suite_class"] for row in document["rows"] if row["status"] == "pass"}

    assert done.returncode == 0, done.stdout
    assert green == WITH_TINY
    assert not {row["status"] for row in document["rows"]} & {"fail", "error", "skip"}
    assert document["receipt"]["server_starts"] == len(WITH_TINY)


def test_harm_is_noticed_and_the_sound_model_is_not_accused() -> None:
    some = ("--defects", "int4 weights", "blank images")  # all of them: tox -e bench
    done = run("benchmarks/defect_detection.py", "--clean-runs=1", *some)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_still_gives_its_goldens() -> None:
    done = run("-m", "pytest", "conformance", "-m", "cpu_baseline", "--vlm-checkpoint=tiny")
    assert done.returncode == 0, done.stdout
    assert "5 of 5 criteria verified on the CPU reference" in done.stdout
