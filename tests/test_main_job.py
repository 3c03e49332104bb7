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
    "TestInternVL3",
    "TestInternVL3HF",
    "TestGlmOcr",
    "TestQwen25VL7B",
    "TestQwen3VL8B",
}

SOME = "ready or models or capital or page-02 or bars-01 or video_is_answered"

MainJob = tuple[str, Path, Any]

pytestmark = pytest.mark.vllm


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> MainJob:
    """The main job with all criteria of one model and some of the others: output, report, rows."""
    directory = tmp_path_factory.mktemp("main-job")
    report = directory / "report"
    done = run(
        *("-m", "pytest", "conformance", "-n", "2", *CPU),
        *("-k", f"test_mineru2_5.py or {SOME}"),
        *(f"--vlm-report={report}", f"--vlm-log-dir={directory / 'logs'}"),
    )
    assert done.returncode == 0, done.stdout
    return done.stdout, report, json.loads((report / "report.json").read_text("utf-8"))


def test_one_model_meets_every_criterion(main_job: MainJob) -> None:
    output, report, document = main_job
    rows = [row for row in document["rows"] if row["suite_class"] == "TestMinerU25"]
    statuses = Counter(row["status"] for row in rows)

    assert set(statuses) <= {"pass", "xfail", "na"}
    assert statuses["pass"] >= 150
    assert "not an NPU" in output.splitlines()[-1]
    assert (report / "adaptation.zh.md").read_text("utf-8").startswith("# CPU")


def test_every_architecture_is_served(main_job: MainJob) -> None:
    _, _, document = main_job
    green = {row["suite_class"] for row in document["rows"] if row["status"] == "pass"}

    assert green == WITH_TINY
    assert not {row["status"] for row in document["rows"]} & {"fail", "error", "skip"}
    # Each once, and one model again for its restart, its variant, its small steps, and
    # behind its killed engine.
    assert document["receipt"]["server_starts"] == len(WITH_TINY) + 4


def test_the_reference_still_gives_its_goldens(tmp_path: Path) -> None:
    reference = ("-m", "cpu_baseline", "--vlm-checkpoint=tiny", f"--vlm-report={tmp_path}")
    done = run("-m", "pytest", "conformance", *reference)
    assert done.returncode == 0, done.stdout
    assert "7 of 7 criteria verified on the CPU reference" in done.stdout
    assert (tmp_path / "adaptation.en.md").read_text("utf-8").startswith("# CPU REFERENCE run")


def test_a_recording_verifies_nothing(tmp_path: Path) -> None:
    one = ("conformance/test_mineru2_5.py", "-k", "TestMinerU25 and capital]", "--vlm-record")
    where = ("-o", f"vlm_golden_dir={tmp_path / 'golden'}", f"--vlm-report={tmp_path / 'report'}")
    done = run("-m", "pytest", *one, *where, "--vlm-checkpoint=tiny")
    assert done.returncode == 0, done.stdout
    assert "0 of 1 criteria verified on the CPU reference; 1 recorded" in done.stdout
    document = (tmp_path / "report" / "adaptation.en.md").read_text("utf-8")
    assert document.startswith("# CPU REFERENCE run: not an NPU result")
    assert "📝 1 recorded" in document
