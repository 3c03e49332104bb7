"""The criteria that look at offline engines: which engines run for them, how often, and what of it.

The server is the stub, vLLM's offline engine a fake that misbehaves; Transformers is real.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import offline_vllm, replay_vllm

from pytest_ascend_vlm.session.memo import Memo

ROOT = Path(__file__).parent.parent
MODEL = """
from pytest_ascend_vlm import Capability as C, ModelSpec, VLMConformance

class TestOwn(VLMConformance):
    model = ModelSpec(
        "OpenDataLab/MinerU2.5-2509-1.2B",
        tiny="qwen2_vl",
        serve={"limit_mm_per_prompt": {"image": 1, "video": 0}},
        supports={C.TEXT, C.IMAGE, C.DOCUMENT},
        unsupported=dict.fromkeys((C.VIDEO, C.VQA, C.GROUNDING), "documents only"),
        prompts={"document": "Extract all text from this document image."},
    )
"""

# --- once, whatever happens ----------------------------------------------------------------------


def counting(work: Callable[[], Any]) -> tuple[Memo[Any], list[None]]:
    """Something done once, and a list that is as long as it was done often."""
    times: list[None] = []

    def counted() -> Any:
        times.append(None)
        return work()

    return Memo(counted), times


@pytest.mark.parametrize("given", [None, 0, "an answer"])
def test_what_was_given_is_kept(given: object) -> None:
    once, times = counting(lambda: given)
    assert [once(), once()] == [given, given]
    assert len(times) == 1


@pytest.mark.parametrize("error", [ValueError("shape"), KeyError("a"), OSError("disk")], ids=repr)
def test_every_error_is_kept(error: Exception) -> None:
    once, times = counting(lambda: raises(error))
    for _ in range(3):
        with pytest.raises(type(error)) as raised:
            once()
        assert raised.value is error
    assert len(times) == 1


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt(), pytest.skip.Exception("s"), pytest.exit.Exception("e")], ids=repr
)
def test_what_ends_a_test_or_the_run_is_not_what_the_work_gave(end: BaseException) -> None:
    once, times = counting(lambda: raises(end))
    for _ in range(2):
        with pytest.raises(type(end)):
            once()
    assert len(times) == 2


def raises(error: BaseException) -> None:
    raise error


# --- through the suite ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Project:
    """A model served by the stub, its offline engine a fake.

    Attributes:
        root: its directory.
    """

    root: Path

    def run(self, *arguments: str, **env: str) -> list[dict[str, Any]]:
        """The rows of a run."""
        python_path = os.pathsep.join([str(self.root / "stub"), os.environ.get("PYTHONPATH", "")])
        starts = self.root / "starts.txt"
        starts.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": python_path,
            "STUB_ROOT": str(ROOT),
            "FAKE_VLLM_STARTS": str(starts),
            **env,
        }
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--vlm-platform=cpu"]
        command += ["--vlm-checkpoint=tiny", "--vlm-report=report", *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        path = self.root / "report" / "report.json"
        assert path.is_file(), done.stdout + done.stderr
        rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"]
        path.unlink()
        return rows

    @property
    def starts(self) -> list[str]:
        """The vLLM engines that the last run started: "pooling", or the data type asked for."""
        path = self.root / "starts.txt"
        return path.read_text("utf-8").split() if path.exists() else []

    def tasks(self, log: str = "offline") -> list[str]:
        """What the offline engines were told to do in the last run."""
        logs = (self.root / ".vlm-logs").rglob(f"*-{log}.log")
        lines = max(logs, key=lambda path: path.stat().st_mtime_ns).read_text("utf-8").splitlines()
        return [line.removeprefix("[offline] ") for line in lines if line.startswith("[offline] ")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "test_own.py").write_text(MODEL, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    offline_vllm.install(replay_vllm.install(tmp_path / "stub"))
    return Project(tmp_path)


def statuses(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["criterion"], set()).add(row["status"])
    return found


def test_only_what_a_selected_criterion_looks_at_is_done(project: Project) -> None:
    marks = ("-m", "serving or accuracy or determinism")
    rows = project.run(*marks, "-k", "offline_answers or text_matches")
    assert set(statuses(rows)) == {"serving.offline", "baseline.text"}
    assert project.tasks() == ["chat"]
    project.run("-k", "hidden_states_match or float32_leaves")
    assert project.tasks() == ["hidden states", "float32"]


def test_what_fails_does_so_once_and_alone(project: Project) -> None:
    rows = project.run(
        "-k",
        "offline_answers or hidden_states_match or float32_leaves",
        FAKE_VLLM="one-answer-less",
    )
    assert statuses(rows) == {
        "serving.offline": {"error"},
        "numerics.hidden_states": {"error"},
        "numerics.fp32_probe": {"error"},
    }
    reasons = {row["criterion"]: row["reason"] for row in rows}
    assert "17 answers for 18 requests" in reasons["serving.offline"]
    assert "answers" not in reasons["numerics.hidden_states"]
    assert project.starts == ["None", "pooling", "float32"]


def test_a_process_that_dies_is_started_once(project: Project) -> None:
    rows = project.run("-k", "offline_answers or hidden_states_match", FAKE_VLLM="dies")
    assert [row["status"] for row in rows] == ["error"] * 4
    assert project.starts == ["None"]


NOISY = {"STUB_DEFECTS": json.dumps({"--port": "LOGPROBS_ARE_NOISY"})}


def test_a_failure_says_the_same_of_the_operators_whatever_is_selected(project: Project) -> None:
    alone = project.run("-k", "logits_match and error_ratio", **NOISY)
    assert project.tasks("offline-transformers") == ["transformers"]
    among = project.run("-k", "(logits_match or operators_match) and error_ratio", **NOISY)
    assert project.tasks() == ["transformers"]
    first, second = (
        next(row for row in rows if row["criterion"] == "numerics.logits")
        for rows in (alone, among)
    )
    assert first["status"] == second["status"] == "fail"
    assert "Transformers on the same device is right (R = " in first["reason"]
    assert first["reason"] == second["reason"]
    assert first["measured"] == second["measured"]
