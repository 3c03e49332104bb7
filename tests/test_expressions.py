"""`-m` by pytest's own grammar: what it asks for, and what it only leaves out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_ascend_vlm.integration.expressions import asks_for, names_in


@pytest.mark.parametrize(
    "expression",
    [
        "performance",
        "(performance)",
        "performance and image_thing",
        "image_thing and (speed or performance)",
        "accuracy or performance",
        "npu or performance",
        "npu and performance",
        "performance and not dataset",
        "not dataset and performance",
        "not (not performance)",
        "not not performance",
        "not (dataset or not performance)",
        "(performance and not serving) or (serving and not performance)",
        "performance(kind='x')",
        "not slow and (performance or not fast)",
    ],
)
def test_a_marker_that_selects_is_asked_for(expression: str) -> None:
    if "(kind" in expression and tuple(map(int, pytest.__version__.split(".")[:2])) < (8, 3):
        pytest.skip("arguments of markers came with pytest 8.3")
    assert asks_for("performance", expression)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "not performance",
        "not (performance or dataset)",
        "not(performance)",
        "not  performance",
        "npu and not performance",
        "npu and not (determinism and performance)",
        "not (dataset and performance)",
        "not (accuracy or (performance and npu))",
        "performance_of_mine",
        "my-performance",
        "performance.single",
        "accuracy",
        "performance and not performance",
        "performance or not performance",
    ],
)
def test_a_marker_that_only_leaves_out_is_not(expression: str) -> None:
    assert not asks_for("performance", expression)


def test_a_long_expression_takes_few_steps() -> None:
    others = " and ".join(f"not marker_{number}" for number in range(200))
    assert asks_for("performance", f"{others} and performance")
    assert not asks_for("performance", f"{others} and not performance")


def test_a_malformed_expression_is_pytests_own_error() -> None:
    with pytest.raises(pytest.UsageError, match="Wrong expression passed to '-m'"):
        asks_for("performance", "performance and (")


def test_every_name_is_seen() -> None:
    assert names_in("-k", "a and (b or (c and not d[x/y-1]))") == {"a", "b", "c", "d[x/y-1]"}


TWO_WORKERS = """
import pytest

@pytest.mark.accuracy
def test_mine(): pass
"""


def test_leaving_speed_out_leaves_the_workers_in(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(TWO_WORKERS, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")

    def run(expression: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-n", "1", "-m", expression]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("not (performance or dataset)")
    assert done.returncode == 0, done.stdout + done.stderr
    refused = run("accuracy or performance")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "remove -n" in refused.stderr
