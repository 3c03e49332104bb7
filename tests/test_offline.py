"""The offline engines' process: what it tells, and that it leaves nothing behind."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes import offline_vllm
from safetensors.numpy import save_file

from pytest_ascend_vlm import Capability, Case
from pytest_ascend_vlm.engines.vllm import offline
from pytest_ascend_vlm.engines.vllm.offline_worker import Job
from pytest_ascend_vlm.errors import ServerError

TINY = Path(__file__).parent.parent / "fixtures" / "tiny" / "qwen2_vl"
CASE = Case("text/capital-zh", Capability.TEXT, "法国的首都是哪里?", max_tokens=8)
AFTER_A_KILL = 30.0

pytestmark = pytest.mark.usefixtures("fake")


def job(*tasks: str) -> Job:
    serve = {"seed": 1024, "enable_prompt_tokens_details": True}
    return Job(TINY, False, "cpu", 2, tasks, serve, ((CASE, "巴黎"),))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(offline_vllm.install(tmp_path / "fake")))


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


@pytest.mark.parametrize(
    ("behaviour", "task", "problem"),
    [
        ("one-answer-less", "chat", "0 answers for 1 requests"),
        ("odd-tokens", "chat", "TypeError"),
        ("flat-states", "hidden_states", "hidden of request 1 has shape"),
    ],
)
def test_a_result_that_is_none_is_the_error_of_its_own_task(
    behaviour: str, task: str, problem: str, tmp_path: Path
) -> None:
    result = run(job("chat", "hidden_states"), tmp_path, behaviour)
    assert list(result.errors) == [task]
    assert problem in result.errors[task]
    found = {"chat": result.answers, "hidden_states": result.hidden_states}
    assert [name for name, of_cases in found.items() if of_cases] == [
        name for name in found if name != task
    ]


def test_an_answer_that_cannot_be_forced_stops_no_task_without_it(tmp_path: Path) -> None:
    work = dataclasses.replace(job("chat", "transformers"), cases=((CASE, ""),))
    result = run(work, tmp_path)
    assert result.answers[CASE.id].text.startswith("巴黎")
    assert "the answer cannot be forced" in result.errors["transformers"]


def test_what_ended_before_the_process_died_counts(tmp_path: Path) -> None:
    result = run(job("chat", "hidden_states", "transformers"), tmp_path, "dies-pooling")
    assert result.answers[CASE.id].text.startswith("巴黎")
    assert set(result.errors) == {"hidden_states", "transformers"}
    for problem in result.errors.values():
        assert "SIGSEGV, a native crash) in task 'hidden states'" in problem
        assert "Segmentation fault in a kernel" in problem


@pytest.mark.parametrize("spoilt", ["chat.json", "chat.safetensors"])
def test_half_a_result_is_the_error_of_its_own_task(spoilt: str, tmp_path: Path) -> None:
    for task in ("chat", "hidden_states"):
        (tmp_path / f"{task}.json").write_text('{"answers": [{}]}', "utf-8")
        save_file({"0.hidden": np.zeros((9, 4))}, tmp_path / f"{task}.safetensors")
    path = tmp_path / spoilt
    path.write_bytes(path.read_bytes()[:-3])
    result = offline.read(tmp_path, job("chat", "hidden_states", "float32"), "it died")
    assert result.hidden_states[CASE.id].shape == (9, 4)
    assert "cannot be read" in result.errors["chat"]
    assert result.errors["float32"] == "it died"


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
    assert not _running(tmp_path)


def _running(directory: Path) -> list[psutil.Process]:
    """Processes that were started by the test whose directory it is: their engine lies there."""
    found = psutil.process_iter(["environ", "status"])
    return [
        process
        for process in found
        if str(directory) in (process.info["environ"] or {}).get("PYTHONPATH", "")
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_nothing_outlives_a_killed_run(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests'); import test_offline as t;"
        f"t.run(t.job('chat'), pathlib.Path({str(tmp_path)!r}), 'hangs')"
    )
    root = Path(__file__).parent.parent
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary)}
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=env)
    pid = _engine_pid(tmp_path / "offline.log")
    assert list(temporary.glob("*/job.json"))
    runner.kill()
    runner.wait()

    deadline = time.monotonic() + AFTER_A_KILL
    while (psutil.pid_exists(pid) or any(temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(pid)
    assert not list(temporary.iterdir())


def _engine_pid(log: Path) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and (found := re.search(r"pid (\d+)", log.read_text("utf-8"))):
            return int(found[1])
        time.sleep(0.1)
    raise AssertionError("the engine was not reached")
