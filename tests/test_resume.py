"""`--vlm-resume`: what a killed run has judged is taken over where nothing differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fakes import misbehaving_server
from helpers.killed import ended, killed, told
from helpers.three_models import judge, write
from helpers.watch import GONE_WITHIN_SECONDS, Watch

from pytest_ascend_vlm import reporting
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.reporting.journal import FILE_NAME, read
from pytest_ascend_vlm.reporting.language import LANGUAGES
from pytest_ascend_vlm.reporting.resume import earlier_runs

SELECTED = ("-k", "text_is_answered or models_are_listed or own or lifecycle")
CPU = ("--vlm-platform=cpu", *SELECTED)
ALONE, TWO = ("-p", "no:xdist"), ("-n", "2")


def of_last_run(report: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind of the last run in a journal."""
    found = read(report / FILE_NAME)
    last = found[-1]["run"]
    return [event for event in found if event["event"] == kind and event["run"] == last]


def runs_in(report: Path) -> int:
    """The number of runs in a journal."""
    return sum(event["event"] == "run" for event in read(report / FILE_NAME))


def begun(project: Path) -> list[str]:
    """The tests that the last run of the project really ran."""
    return [event["nodeid"] for event in of_last_run(project / "report", "begin")]


def starts(report: dict[str, Any]) -> dict[str, int]:
    """Test class -> the number of its server starts."""
    return {model["suite_class"]: model["server_starts"] for model in report["models"]}


@pytest.fixture(scope="module")
def project_of_a_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with the report `first` of a run that ended."""
    home = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(misbehaving_server.install(home / "stand-in")))
        project = write(home / "project")
        done, report = judge(project, *CPU, *ALONE)
        assert report is not None, done.stdout
        (project / "report").rename(project / "first")
        yield project


@pytest.fixture
def finished(project_of_a_run: Path, tmp_path: Path) -> Path:
    """A copy of the project with the report `first`."""
    return Path(shutil.copytree(project_of_a_run, tmp_path / "project"))


@pytest.mark.parametrize(
    ("verdicts", "runs"),
    [(1, (ALONE, TWO)), (5, (ALONE, ALONE)), (4, (TWO, TWO)), (12, (TWO, ALONE))],
)
def test_a_killed_run_goes_on_to_the_rows_of_an_undisturbed_one(
    verdicts: int,
    runs: tuple[tuple[str, ...], tuple[str, ...]],
    finished: Path,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        for name, value in watch.environment.items():
            patch.setenv(name, value)
        killed(finished, (*CPU, *runs[0]), lambda: len(ended(finished)) >= verdicts)
    before = ended(finished)
    done, report = judge(finished, *CPU, *runs[1], "--vlm-resume=killed")
    undisturbed = json.loads((finished / "first" / "report.json").read_text("utf-8"))
    assert told(report) == told(undisturbed), done.stdout
    taken = [row for row in report["rows"] if "taken_over" in row]
    assert len(taken) >= verdicts
    assert f"{len(taken)} results taken over from killed" in done.stdout
    assert not set(begun(finished)) & set(before)
    assert not watch.left_after(GONE_WITHIN_SECONDS)


def test_a_complete_run_starts_no_server_again(finished: Path) -> None:
    done, report = judge(finished, *CPU, *TWO, "--vlm-resume=first")
    assert begun(finished) == ["test_models.py::TestMiddle::test_own"]  # it has no verdict
    classes = {event["suite_class"] for event in of_last_run(finished / "report", "phase")}
    assert classes == {"TestMiddle"}
    assert "taken over" in done.stdout.splitlines()[-1]
    (first, second) = report["receipt"]["runs"]
    assert first["statuses"]["fail"] == 3
    assert second["statuses"].keys() == {"na"}
    before = starts(json.loads((finished / "first" / "report.json").read_text("utf-8")))
    assert starts(report) == {**before, "TestMiddle": before["TestMiddle"] + 1}
    schema = resources.files(reporting).joinpath("report.schema.json").read_text("utf-8")
    jsonschema.validate(report, json.loads(schema))


def test_each_form_names_where_a_verdict_came_from(finished: Path) -> None:
    done, report = judge(finished, *CPU, *ALONE, "--vlm-resume=first", "--junitxml=junit.xml")
    row = next(row for row in report["rows"] if row["status"] == "fail")
    date = row["taken_over"]["date"]
    assert row["taken_over"]["report"] == "first"
    assert f"taken over from first, judged on {date}" in done.stdout
    junit = (finished / "junit.xml").read_text("utf-8")
    assert f"taken over from first, judged on {date}" in junit
    assert 'failures="3"' in junit
    for language in LANGUAGES:
        (document,) = (finished / "report").glob(f"adaptation.*small.{language}.md")
        assert date in document.read_text("utf-8").partition("##")[0]
    assert '"taken_over"' in (finished / "report" / "report.html").read_text("utf-8")


def test_a_class_that_differs_is_judged_again_and_the_others_are_not(finished: Path) -> None:
    golden = finished / "golden" / "stand-in--small" / "tiny" / "text"
    golden.mkdir(parents=True)
    (golden / "capital.json").write_text("{}", "utf-8")
    done, report = judge(finished, *CPU, *ALONE, "--vlm-resume=first")
    taken = {row["suite_class"] for row in report["rows"] if "taken_over" in row}
    assert taken == {"TestMiddle", "TestLarge"}
    line = "judged again: stand-in/small (TestSmall): golden text/capital: none in first, "
    assert line in done.stdout


def test_a_class_that_two_hosts_judged_differently_is_judged_again(
    project_of_a_run: Path, tmp_path: Path
) -> None:
    events = read(project_of_a_run / "first" / FILE_NAME)
    (run,) = (event for event in events if event["event"] == "run")
    small, *_ = (event for event in events if event["event"] == "class")
    other = {**small, "weights_sha256": "f" * 64}
    for more, is_taken in (([small], True), ([other], False)):
        journal = "\n".join(map(json.dumps, [*events, *more, small]))
        (tmp_path / FILE_NAME).write_text(journal, "utf-8")
        receipt = {**run["receipt"], "conditions": run["conditions"]}
        found = earlier_runs(tmp_path, receipt).taken_over(small)
        assert bool(found.rows) is is_taken
        assert any("digest of the weights" in line for line in found.refused) is not is_taken


@pytest.mark.parametrize("change", ["weights", "config", "model file"])
def test_nothing_is_taken_over_where_something_differs(change: str, finished: Path) -> None:
    tiny = finished / "fixtures" / "tiny" / "tiny"
    path, line = {
        "weights": (tiny / "model.safetensors", "digest of the weights"),
        "config": (tiny / "config.json", "checkpoint's config.json"),
        "model file": (finished / "test_models.py", "file test_models.py"),
    }[change]
    path.write_bytes(path.read_bytes() + b"\n")
    done, report = judge(finished, *CPU, *ALONE, "--vlm-resume=first")
    assert not [row for row in report["rows"] if "taken_over" in row]
    assert f"judged again: stand-in/small (TestSmall): {line}: " in done.stdout


@pytest.mark.parametrize(
    ("option", "variable", "told_line"),
    [
        ("--vlm-examples=7", "", "--vlm-examples: 60 in the run of "),
        ("", "VLLM_ASCEND_ENABLE_NZ", "variable VLLM_ASCEND_ENABLE_NZ: none in the run of "),
        ("", "LCCL_DETERMINISTIC", "variable LCCL_DETERMINISTIC: none in the run of "),
        ("--vlm-serve=max_model_len=64", "", "serve_overrides: max_model_len: none in the run of "),
    ],
)
def test_another_set_up_ends_the_run_before_its_first_test(
    option: str, variable: str, told_line: str, finished: Path
) -> None:
    options = [option] if option else []
    environment = {variable: "0"} if variable else {}
    done, report = judge(finished, *CPU, *TWO, "--vlm-resume=first", *options, **environment)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--vlm-resume: no verdict in first holds for this run:" in done.stderr
    assert told_line in done.stderr
    assert "Traceback" not in done.stderr
    assert report is None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--vlm-resume=nowhere",), "cannot read nowhere/events.jsonl (No such file or directory)"),
        (("--vlm-resume=first", "--vlm-server-url=http://localhost:1"), "endpoint still serves"),
        (("--vlm-resume=first", "--vlm-report-append"), "resume first, then merge"),
        (("--vlm-resume=first", "--vlm-record"), "a recording goes on by itself"),
    ],
)
def test_what_cannot_be_resumed_is_told(
    options: tuple[str, ...], problem: str, finished: Path
) -> None:
    done, _ = judge(finished, *CPU, *ALONE, *options)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("kind", "damage", "problem"),
    [
        ("run", {"receipt": {}}, "is not a journal written by pytest --vlm-report (KeyError("),
        ("run", {"receipt": 1}, "is not a journal written by pytest --vlm-report (TypeError("),
        ("run", {"time": "x"}, "is not a journal written by pytest --vlm-report (ValueError("),
        ("class", {"time": "2026-01-01"}, "is not a journal written by"),
        ("class", {"model": ["a"]}, "is not a journal written by"),
        ("test", {"rows": [{}]}, "is not a journal written by"),
        ("test", {"models": None}, "is not a journal written by"),
        ("run", {"schema": 99}, "has a run of schema 99, but this version reads schema 1; use the"),
    ],
)
def test_a_damaged_journal_is_refused_in_one_line(
    kind: str, damage: dict[str, Any], problem: str, project_of_a_run: Path, tmp_path: Path
) -> None:
    events = read(project_of_a_run / "first" / FILE_NAME)
    (receipt,) = (event["receipt"] for event in events if event["event"] == "run")
    damaged = [{**event, **damage} if event["event"] == kind else event for event in events]
    (tmp_path / FILE_NAME).write_text("\n".join(map(json.dumps, damaged)), "utf-8")
    with pytest.raises(ConfigurationError) as raised:
        earlier_runs(tmp_path, receipt)
    assert f"--vlm-resume: {tmp_path / FILE_NAME} {problem}" in str(raised.value)


def test_a_resumed_run_that_is_killed_in_its_own_directory_loses_nothing(finished: Path) -> None:
    killed(finished, (*CPU, *ALONE), lambda: len(ended(finished)) >= 6)
    before = set(ended(finished))
    resumed = (*CPU, *ALONE, "--vlm-resume=killed")
    path = finished / "killed"
    killed(finished, resumed, lambda: runs_in(path) == 2)
    assert before <= set(ended(finished))
    _, report = judge(finished, *resumed)
    undisturbed = json.loads((finished / "first" / "report.json").read_text("utf-8"))
    assert told(report) == told(undisturbed)
    assert not before & set(begun(finished))


def test_a_gate_accepts_what_was_taken_over(finished: Path) -> None:
    (finished / "conformance").mkdir()
    listed = "TestSmall serving.text\nTestLarge serving.text\n"
    (finished / "conformance" / "required.txt").write_text(listed, "utf-8")
    text = ("--vlm-platform=cpu", "-k", "text_is_answered", *ALONE, "--vlm-gate")
    done, report = judge(finished, *text, "--vlm-resume=first")
    assert done.returncode == 0, done.stdout
    assert all("taken_over" in row for row in report["rows"] if row["status"] == "pass")
    assert not begun(finished)
