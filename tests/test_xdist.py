"""Several models at once: one model, one worker, one server, and the same report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from three_models import judge as run

CPU = ("--vlm-platform=cpu", "-k", "text_is_answered or own")


def verdicts(document: Any) -> set[tuple[str, str, str, str]]:
    return {
        (row["suite_class"], row["criterion"], row["case"], row["status"])
        for row in document["rows"]
    }


@pytest.mark.parametrize("dist", [None, "loadgroup"])
def test_three_models_start_three_servers(dist: str | None, three_models: Path) -> None:
    alone, expected = run(three_models, *CPU, "-p", "no:xdist")
    done, document = run(three_models, *CPU, "-n", "2", *([f"--dist={dist}"] if dist else []))
    assert (alone.returncode, done.returncode) == (0, 0), done.stdout
    assert verdicts(document) == verdicts(expected)
    assert document["receipt"]["server_starts"] == 3
    assert document["receipt"]["requests"] == expected["receipt"]["requests"]
    assert {model["model"] for model in document["models"]} == {
        "stand-in/small",
        "stand-in/middle",
        "stand-in/large",
    }
    assert done.stdout.splitlines()[-1] == alone.stdout.splitlines()[-1]


def test_the_largest_model_is_started_first(three_models: Path) -> None:
    done, _ = run(three_models, *CPU, "-n", "1", "-v")
    order = [line for line in done.stdout.splitlines() if "PASSED" in line and "::Test" in line]
    classes = [line.partition("::")[2].partition("::")[0] for line in order]
    assert list(dict.fromkeys(classes)) == ["TestLarge", "TestMiddle", "TestSmall"]


def test_a_project_without_models_keeps_its_scheduling(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(40))\ndef test_n(n): pass\n", "utf-8"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-v"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    workers = {line.split("]")[0] for line in done.stdout.splitlines() if "PASSED" in line}
    assert len(workers) == 2, "one module went to one worker"
