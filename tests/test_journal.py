"""The journal beside the report: what a run tells while it goes on, also if it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.outcome import Judged, Serve
from helpers.three_models import judge

from pytest_ascend_vlm.reporting.journal import FILE_NAME, Journal, read
from pytest_ascend_vlm.reporting.rows import VERDICTS

CPU = ("--vlm-platform=cpu", "-k", "text_is_answered or models_are_listed or own")


def events(directory: Path) -> list[dict[str, Any]]:
    return read(directory / FILE_NAME)


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["event"] == kind]


@pytest.mark.parametrize("more", [("-p", "no:xdist"), ("-n", "2")])
def test_it_has_every_row_and_fact_of_the_report(more: tuple[str, ...], three_models: Path) -> None:
    done, report = judge(three_models, *CPU, *more)
    found = events(three_models / "report")
    (run,) = of("run", found)
    assert found[0] == run
    assert found[-1]["event"] == "end"
    tests = of("test", found)
    assert run["tests"] == len(tests), done.stdout
    assert {event["run"] for event in found} == {Path(run["receipt"]["runs"][0]["logs"]).name}
    rows = [row for test in tests for row in test["rows"]]
    assert sorted(rows, key=str) == sorted(report["rows"], key=str)
    facts = {fact["suite_class"] for test in tests for fact in test["models"]}
    assert facts == {model["suite_class"] for model in report["models"]}
    assert {test["worker"] for test in tests} <= ({"main"} if "-p" in more else {"gw0", "gw1"})


def test_a_path_among_the_arguments_is_kept_as_text(three_models: Path) -> None:
    """As `pytest.main` takes it, which a script calls."""
    arguments = "[Path('test_models.py'), *sys.argv[1:]]"
    code = (
        f"import sys; from pathlib import Path; import pytest; sys.exit(pytest.main({arguments}))"
    )
    options = (*CPU[:1], "-k", "own", "--vlm-checkpoint=tiny", "--vlm-report=report")
    subprocess.run([sys.executable, "-c", code, *options], cwd=three_models, check=True)
    report = json.loads((three_models / "report" / "report.json").read_text("utf-8"))
    assert report["receipt"]["argv"] == ["test_models.py", *options]


@pytest.mark.parametrize("more", [("-p", "no:xdist"), ("-n", "2")])
def test_it_has_the_phases_of_each_class(more: tuple[str, ...], three_models: Path) -> None:
    judge(three_models, *CPU, *more)
    phases = of("phase", events(three_models / "report"))
    of_small = [event for event in phases if event["suite_class"] == "TestSmall"]
    names = [event["phase"] for event in of_small]
    assert names == ["server: start", "server: first image", "judging", "ending"]
    assert {event["model"] for event in of_small} == {"stand-in/small"}
    assert of_small[0]["budget_seconds"] == 900
    begun = of("begin", events(three_models / "report"))
    assert any("TestMiddle::test_own" in event["nodeid"] for event in begun)


def test_a_new_run_begins_a_new_journal_and_an_appended_one_goes_on(
    stub: Serve, judged: Judged
) -> None:
    url = stub()
    first = judged(url, "-k", "models")
    judged(url, "-k", "unsupported", "--vlm-report-append")
    runs = of("run", events(first.directory))
    assert len({run["run"] for run in runs}) == 2
    judged(url, "-k", "models")
    assert len(of("run", events(first.directory))) == 1


def test_a_run_without_a_test_leaves_the_journal(stub: Serve, judged: Judged) -> None:
    url = stub()
    first = judged(url, "-k", "models")
    before = events(first.directory)
    judged(url, "-k", "nothing_of_that_name")
    judged(url, "--collect-only")
    assert events(first.directory) == before


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    journal = Journal(path, "a-run")
    journal.write({"event": "test", "nodeid": "页"})
    whole = path.read_bytes()
    journal.write({"event": "end"})
    for end in range(len(whole), len(path.read_bytes()) - 1):
        path.write_bytes((whole + b'{"event": "end", "run": "x"')[: end + 1])
        (event,) = read(path)
        assert event["nodeid"] == "页"
    again = Journal(path, "next", read(path))
    again.write({"event": "end"})
    assert [event["run"] for event in read(path)] == ["a-run", "next"]
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == read(path)


def test_what_is_no_event_is_left_out(tmp_path: Path) -> None:
    event = {"event": "test", "time": "x", "run": "a"}
    lines = [{**event, "run": ["a"]}, {**event, "event": {}}, {"run": "a"}, [], event]
    (tmp_path / FILE_NAME).write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert events(tmp_path) == [event]


def test_a_directory_that_is_gone_ends_the_journal_and_not_the_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "report" / FILE_NAME, "a-run")
    (tmp_path / "report" / FILE_NAME).unlink()
    (tmp_path / "report").rmdir()
    journal.write({"event": "end"})
    assert "ends early: No such file or directory" in str(journal.problem)
    journal.write({"event": "end"})


def test_a_killed_run_leaves_what_had_ended(three_models: Path) -> None:
    command = [sys.executable, "-m", "pytest", "--vlm-checkpoint=tiny", "--vlm-report=report"]
    process = subprocess.Popen(
        [*command, "--vlm-log-dir=logs", "-p", "no:xdist", *CPU],
        cwd=three_models,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "STAND_IN": json.dumps({"hang_from": 3})},
    )
    path = three_models / "report" / FILE_NAME
    while process.poll() is None and not (path.is_file() and of("test", read(path))):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    tests = of("test", read(path))
    assert tests
    assert all(row["status"] in VERDICTS for test in tests for row in test["rows"])
    assert not of("end", read(path))
