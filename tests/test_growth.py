"""growth.*: what is asked of a server, which host memory counts, and which options are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fakes.replay_server import Behaviour, Defect, Refused, Request, State
from helpers.outcome import Judged, Outcome, Serve

from pytest_ascend_vlm.processes.host_memory import memory_by_process

IMAGES = 100


def soaked(judged: Judged, url: str, *more: str) -> Outcome:
    return judged(url, "-m", "soak", f"--vlm-soak={IMAGES}", *more)


# --- which criteria run --------------------------------------------------------------------------


def test_growth_is_judged_only_where_it_is_named(judged: Judged, stub: Serve) -> None:
    rows = judged(stub(), "-k", "models or levels_off or come_again").rows
    assert {row["criterion"] for row in rows} == {"serving.models"}


def test_side_by_side_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("-n", "2", "-m", "soak")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*disturb each other's measurements in parallel; remove -n*"])


@pytest.mark.parametrize("number", ["99", "0", "-1", "many"])
def test_too_few_images_are_refused(number: str, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("-p", "no:hypothesispytest", f"--vlm-soak={number}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--vlm-soak*"])


# --- an endpoint ---------------------------------------------------------------------------------


def test_an_endpoint_is_judged_by_its_answers(judged: Judged, stub: Serve) -> None:
    asked: list[Request] = []
    watching = Behaviour(crash=lambda request, _: asked.append(request))
    outcome = soaked(judged, stub(watching))
    memory, _, answers = outcome.rows
    assert [row["status"] for row in outcome.rows] == ["skip", "skip", "pass"]
    assert "not visible" in memory["reason"]
    questions = answers["evidence"]["answers"] // 2
    assert len(asked) == IMAGES + 3 * questions
    assert all(request.images for request in asked)
    assert len({request.salt for request in asked}) == len(asked)
    (model,) = outcome.report["models"]
    assert model["requests"] == len(asked)
    # Each image between has pixels of its own; those at the beginning come again.
    assert [one.images for one in asked[:questions]] == [one.images for one in asked[-questions:]]


@pytest.mark.catches("growth.answers")
def test_images_that_are_confused_after_many_others_are_caught(judged: Judged, stub: Serve) -> None:
    outcome = soaked(judged, stub(Defect.EVICTED_IMAGES_ARE_CONFUSED.value))
    assert outcome.criteria("fail") == {"growth.answers"}
    (reason,) = outcome.reasons("growth.answers")
    assert f"after {IMAGES} different images, 0 of" in reason
    assert "the first difference is in" in reason


def test_a_server_that_refuses_a_late_image_is_an_error(judged: Judged, stub: Serve) -> None:
    def crash(request: Request, state: State) -> Refused | None:
        state.asked["images"] += bool(request.images)
        late = state.asked["images"] > IMAGES // 2
        return Refused(500, "Expected a cached item", "engine") if late else None

    outcome = soaked(judged, stub(Behaviour(crash=crash)))
    assert outcome.criteria("error") == {"growth.answers"}
    assert "Expected a cached item" in outcome.reasons("growth.answers")[0]


def test_an_endpoint_that_nobody_serves_ends_the_run(judged: Judged) -> None:
    outcome = soaked(judged, "http://127.0.0.1:9")
    assert not outcome.rows
    assert "http://127.0.0.1:9" in outcome.text + outcome.result.stderr.str()


# --- host memory ---------------------------------------------------------------------------------

TREE = """
import subprocess, sys
if sys.argv[1:]:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
held = b"1" * (64 * 2**20)
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[psutil.Process]:
    """A process with a child; each holds 64 MiB of its own."""
    script = tmp_path / "tree.py"
    script.write_text(TREE, "utf-8")
    process = subprocess.Popen(
        [sys.executable, str(script), TREE.replace("sys.argv[1:]", "False")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    yield psutil.Process(process.pid)
    for child in psutil.Process(process.pid).children():
        child.kill()
    process.kill()
    process.communicate()


def test_every_process_counts(tree: psutil.Process) -> None:
    processes = [tree, *tree.children(recursive=True)]
    found = memory_by_process(processes)
    assert [*found] == [f"{one.name()} {one.pid}" for one in processes]
    assert all(64 < memory < 110 for memory in found.values()), found


def test_a_process_that_has_ended_does_not_count(tree: psutil.Process) -> None:
    (child,) = tree.children()
    child.kill()
    gone = psutil.Process(tree.pid).children()
    assert set(memory_by_process([tree, child, *gone])) >= {f"{tree.name()} {tree.pid}"}
    assert sum(memory_by_process([child]).values()) == 0


def test_without_pss_it_is_rss(tree: psutil.Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refused)
    (memory,) = memory_by_process([tree]).values()
    assert memory == pytest.approx(tree.memory_info().rss / 2**20, rel=0.01)
