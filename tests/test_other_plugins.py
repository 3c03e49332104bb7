"""The suite beside the plugins that projects commonly have."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers.three_models import judge
from hypothesis import given, settings
from hypothesis import strategies as st

CPU = ("--vlm-platform=cpu", "-k", "TestMiddle and (text_is_answered or own or leaves_nothing)")


@pytest.fixture(autouse=True)
def _in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")


@pytest.mark.parametrize("seed", [1, 2])
def test_in_any_order_a_killed_server_is_there_for_whoever_comes_next(
    seed: int, three_models: Path
) -> None:
    done, document = judge(three_models, *CPU, f"--randomly-seed={seed}")
    assert "Using --randomly-seed" in done.stdout
    assert done.returncode == 0, done.stdout
    assert not {row["status"] for row in document["rows"]} & {"fail", "error", "skip"}
    assert {"serving.text", "lifecycle.stop", "lifecycle.kill"} <= {
        row["criterion"] for row in document["rows"]
    }


def test_a_test_that_is_run_again_is_reported_by_its_last_run(three_models: Path) -> None:
    flaky = """
import pathlib

class TestFlaky(TestMiddle):
    def test_own_flaky(self, client, judge):
        from pytest_ascend_vlm.criteria.serving import judge_models
        again = pathlib.Path("again")
        listed = ("a",) if again.exists() else ("b",)
        again.touch()
        judge(judge_models(listed, "a"))
"""
    path = three_models / "test_models.py"
    path.write_text(path.read_text("utf-8") + flaky, "utf-8")
    done, document = judge(three_models, "--vlm-platform=cpu", "-k", "own_flaky", "--reruns=1")
    assert "1 rerun" in done.stdout
    assert done.returncode == 0, done.stdout
    assert [row["status"] for row in document["rows"]] == ["pass"]


def test_a_test_that_takes_too_long_ends_and_leaves_no_server(three_models: Path) -> None:
    done, document = judge(
        three_models,
        *("--vlm-platform=cpu", "-k", "TestSmall and text_is_answered and sum", "--timeout=10"),
        STAND_IN='{"hang_from": 2}',
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "Timeout" in done.stdout
    assert document["receipt"]["server_starts"] == 1


@settings(max_examples=2)
@given(st.floats(0.25, 0.3))  # hypothesis' own limit is 0.2
def test_a_busy_host_fails_no_property(seconds: float) -> None:
    time.sleep(seconds)
