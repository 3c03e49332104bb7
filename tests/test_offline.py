"""The offline engines' process: what it tells, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import fake_vllm
import psutil
import pytest

from pytest_ascend_vlm import Capability, Case
from pytest_ascend_vlm.engines import offline
from pytest_ascend_vlm.engines.offline_worker import Job
from pytest_ascend_vlm.errors import ServerError

TINY = Path(__file__).parent.parent / "fixtures" / "tiny" / "qwen2_vl"
CASE = Case("text/capital-zh", Capability.TEXT, "法国的首都是哪里?", max_tokens=8)
AFTER_A_KILL = 30.0

pytestmark = pytest.mark.usefixtures("fake")


def job(*tasks: str) -> Job:
    serve = {"seed": 1024, "enable_prompt_tokens_details": True}
    return Job(TINY, False, "cpu", tasks, serve, ((CASE, "巴黎"),))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(fake_vllm.install(tmp_path / "fake")))


def run(
    work: Job, tmp_path: Path, behaviour: str = "", budget: float = 120.0
) -> offline.OfflineResult:
    env = {"FAKE_VLLM": behaviour}
    return offline.run(work, env, tmp_path / "offline.log", lambda _: None, budget)


def test_a_job_survives_its_way_to_the_process() -> None:
    sent = job("chat")
    assert Job.from_json(sent.to_json()) == sent


def test_an_engine_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    result = run(job("hidden_states", "transformers", "chat"), tmp_path, "no-pooling")

    assert result.errors == {"hidden_states": "RuntimeError: no pooling on this device"}
    assert result.hidden_states == {}
    assert result.answers[CASE.id].text.startswith("巴黎")
    assert result.transformers[CASE.id].scores.are_logits
    assert "no pooling on this device" in (tmp_path / "offline.log").read_text("utf-8")


def test_the_engine_gets_its_own_arguments_and_not_the_servers(tmp_path: Path) -> None:
    said = run(job("chat"), tmp_path).answers[CASE.id].text.split()[1:]
    assert said == ["model", "seed"]


def test_a_process_that_dies_is_an_error_with_the_tail_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="died") as raised:
        run(job("chat"), tmp_path, "dies")
    assert "Segmentation fault in a kernel" in str(raised.value)


def test_a_passed_budget_ends_it(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="did not end within"):
        run(job("chat"), tmp_path, "hangs", budget=0.5)
    assert not psutil.Process().children(recursive=True)


def test_nothing_outlives_a_killed_run(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests'); import test_offline as t;"
        f"t.run(t.job('chat'), pathlib.Path({str(tmp_path)!r}), 'hangs')"
    )
    root = Path(__file__).parent.parent
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=os.environ.copy())
    pid = _engine_pid(tmp_path / "offline.log")
    runner.kill()
    runner.wait()

    deadline = time.monotonic() + AFTER_A_KILL
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(pid)


def _engine_pid(log: Path) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and (found := re.search(r"pid (\d+)", log.read_text("utf-8"))):
            return int(found[1])
        time.sleep(0.1)
    raise AssertionError("the engine was not reached")
