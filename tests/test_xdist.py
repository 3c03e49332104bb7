"""Several models at once: one model, one worker, one server, and the same report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.three_models import judge as run

from pytest_ascend_vlm import VLMConformance
from pytest_ascend_vlm.criteria.criterion import criteria

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


def test_an_unknown_platform_is_no_traceback(three_models: Path) -> None:
    """The cards are counted before the options are read."""
    done, document = run(three_models, "--vlm-platform=npus", "-n", "auto")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "npus" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert document is None


def test_rows_keep_the_criteria_s_order(
    three_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")  # shuffles tests
    options = ("--vlm-platform=cpu", "-k", "serving or baseline.text or repeat or lifecycle or own")
    _, expected = run(three_models, *options, "-p", "no:randomly")
    for more in (("-n", "2", "-p", "no:randomly"), ("-p", "randomly", "--randomly-seed=3")):
        done, document = run(three_models, *options, *more)
        assert order(document) == order(expected), done.stdout
        assert [model["model"] for model in document["models"]] == [
            "stand-in/small",
            "stand-in/middle",
            "stand-in/large",
        ]
    of_small = [criterion for name, criterion, _ in order(expected) if name == "TestSmall"]
    catalogue = [criterion.id for criterion, _ in criteria(VLMConformance)]
    assert of_small == sorted(of_small, key=catalogue.index)
    assert len(set(of_small)) > 8


def order(document: Any) -> list[tuple[str, str, str]]:
    return [(row["suite_class"], row["criterion"], row["case"]) for row in document["rows"]]


WITHOUT_CHECKPOINT = """
class TestSibling(VLMConformance):
    model = ModelSpec(
        "stand-in/sibling", supports={C.TEXT}, unsupported={c: "-" for c in C if c is not C.TEXT}
    )
"""


@pytest.mark.parametrize("more", [(), ("-n", "2")])
def test_a_class_to_which_nothing_applies_is_one_line(
    more: tuple[str, ...], three_models: Path
) -> None:
    path = three_models / "test_models.py"
    path.write_text(path.read_text("utf-8") + WITHOUT_CHECKPOINT, "utf-8")
    done, document = run(three_models, "--vlm-platform=cpu", "-k", "TestSibling", *more)
    rows = [row for row in document["rows"] if row["suite_class"] == "TestSibling"]
    assert {row["status"] for row in rows} == {"na"}
    assert not re.search(r"^(test_models.py )?s+( |$)", done.stdout, re.MULTILINE)
    assert done.stdout.count("TestSibling") == 1
    assert re.search(rf"\b{len(rows)} not applicable in", done.stdout)
    assert "skipped" not in done.stdout


def test_who_asks_for_each_test_sees_what_does_not_apply(three_models: Path) -> None:
    path = three_models / "test_models.py"
    path.write_text(path.read_text("utf-8") + WITHOUT_CHECKPOINT, "utf-8")
    done, _ = run(three_models, "--vlm-platform=cpu", "-k", "TestSibling and models", "-v")
    assert "TestSibling::test_models_are_listed NOT APPLICABLE" in done.stdout


ONE_TEST_MORE = """
class TestOneMore(VLMConformance):
    model = model("one-more", 1)

    def test_own(self, client, text_case):
        assert client.complete(text_case).text == "Paris"
"""


def test_the_largest_model_is_started_first_and_then_that_with_most_tests(
    three_models: Path,
) -> None:
    path = three_models / "test_models.py"
    path.write_text(path.read_text("utf-8") + ONE_TEST_MORE, "utf-8")
    done, _ = run(three_models, *CPU, "-n", "1", "-v")
    order = [line for line in done.stdout.splitlines() if "PASSED" in line and "::Test" in line]
    classes = [line.partition("::")[2].partition("::")[0] for line in order]
    assert list(dict.fromkeys(classes)) == ["TestLarge", "TestMiddle", "TestOneMore", "TestSmall"]


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
