"""What a run shows while it goes on: a block on a terminal, lines in a log, nothing with `-q`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.screen import Screen, in_terminal
from helpers.three_models import judge

from pytest_ascend_vlm.integration import live
from pytest_ascend_vlm.integration.status import Status, durations

TEXTS = ("--vlm-platform=cpu", "-k", "text_is_answered and capital]", "-p", "no:randomly")


def shown(project: Path, *arguments: str) -> tuple[str, Screen]:
    command = [sys.executable, "-m", "pytest", "--vlm-checkpoint=tiny", "--vlm-report=report"]
    told, screen, code = in_terminal(
        [*command, "--vlm-log-dir=logs", *TEXTS, *arguments],
        project,
        {"TERM": "xterm"},
    )
    assert code == 0, "\n".join(screen.rows)
    return told, screen


@pytest.mark.parametrize(("more", "worker"), [(("-p", "no:xdist"), "main"), (("-n", "2"), r"gw\d")])
def test_a_terminal_has_a_line_of_each_worker_and_keeps_none(
    more: tuple[str, ...], worker: str, three_models: Path
) -> None:
    told, screen = shown(three_models, *more)
    line = (
        rf"{worker} TestSmall \(stand-in/small\) +1/1 serving.text\[text/capital\] +server: start"
    )
    assert re.search(rf"{line} +\d+ of 900 s", told)
    for number in range(3):
        assert re.search(rf"{number} of 3 tests ended", told)
    assert not [row for row in screen.rows if "tests ended" in row or "stand-in/small)  " in row]
    assert [row for row in screen.rows if re.fullmatch(r"=+ 3 passed.* =+", row)]
    dots = [row for row in screen.rows if re.search(r"\.\.\. +\[100%\]", row)]
    assert dots, "\n".join(screen.rows)


def test_a_failure_and_verbose_lines_stay_readable(three_models: Path) -> None:
    command = (sys.executable, "-m", "pytest", "--vlm-checkpoint=tiny", "--vlm-platform=cpu", "-v")
    names = ("-k", "TestSmall and models_are_listed", "-p", "no:randomly", "-p", "no:xdist")
    _, screen, code = in_terminal([*command, *names], three_models, {"TERM": "xterm"})
    assert code == pytest.ExitCode.TESTS_FAILED
    assert [row for row in screen.rows if re.match(r"test_\S+::test_models_are_listed FAILED", row)]
    assert "What to try: compare --served-model-name with the name in the message." in screen.rows
    assert not [row for row in screen.rows if "tests ended" in row]


@pytest.mark.parametrize("option", ["-q", "-s"])
def test_quiet_shows_nothing_and_captured_output_alone_is_redrawn(
    option: str, three_models: Path
) -> None:
    told, _ = shown(three_models, "-p", "no:xdist", option)
    assert "tests ended" not in told
    assert "\x1b[J" not in told


def test_a_second_run_estimates_the_time_left(three_models: Path) -> None:
    first, _ = shown(three_models, "-p", "no:xdist")
    assert "left" not in first
    second, _ = shown(three_models, "-p", "no:xdist")
    assert re.search(r"0 of 3 tests ended; about \d+ s left, as in the earlier run", second)


def test_a_log_has_lines(three_models: Path, tmp_path: Path) -> None:
    (tmp_path / "often.py").write_text(
        f"from {live.__name__} import Live\nimport {live.__name__} as live\n"
        "live._LOG_EVERY_SECONDS = 0.0\n",
        "utf-8",
    )
    path = f"{tmp_path}:{three_models.parent / 'stand-in'}"
    done, _ = judge(three_models, *TEXTS, "-n", "2", "-p", "often", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert any(re.match(r"0 of 3 tests ended", line) for line in lines), done.stdout
    assert not [line for line in lines if re.search(r"\.\d of 3 tests", line)]
    row = (
        r"  gw\d: TestSmall \(stand-in/small\): 1/1 serving.text\[text/capital\]: server: start: "
        r"\d+ of"
    )
    assert any(re.match(row, line) for line in lines), done.stdout
    assert "\x1b" not in done.stdout


def begin(worker: str, name: str) -> dict[str, Any]:
    owner = {"suite_class": name, "model": "an-org/a-model", "criterion": "serving.text"}
    return {"event": "begin", "worker": worker, "nodeid": f"t.py::{name}::a", **owner}


def test_the_seconds_of_a_phase_begin_with_it() -> None:
    status = Status(["t.py::TestA::a"])
    status.take_event(begin("gw0", "TestA"), 10.0)
    phase = {"event": "phase", "worker": "gw0", "phase": "judging", "detail": "", "seconds": None}
    status.take_event({**phase, "budget_seconds": None}, 12.0)
    assert status.workers["gw0"].cells(15.0)[2:] == ("judging", "3 s")
    server = {**phase, "phase": "server: start", "seconds": 40.0, "budget_seconds": 900.0}
    status.take_event(server, 20.0)
    assert status.workers["gw0"].cells(21.0)[2:] == ("server: start", "41 of 900 s")
    status.take_event({"event": "ended", "worker": "gw0"}, 22.0)
    assert not status.workers


def test_what_was_done_before_the_tests_is_over() -> None:
    """The driver of a cluster asks the hosts, and judges nothing itself."""
    tests = ["t.py::TestA::a", "t.py::TestB::a"]
    status = Status()
    asking = {"phase": "cluster", "detail": "asking 2 hosts", "seconds": None}
    status.take_event({"event": "phase", "worker": "main", **asking, "budget_seconds": None}, 0.0)
    assert set(status.workers) == {"main"}
    status.begin(tests, dict.fromkeys(tests, 60.0))
    assert not status.workers
    status.take_event(begin("h1-0", "TestA"), 1.0)
    # One worker was seen, so both classes are taken to run in it.
    assert "about 2 min left" in status.headline()


def test_a_worker_shows_the_place_of_its_test_in_the_class() -> None:
    status = Status(["t.py::TestA::a", "t.py::TestA::b", "t.py::TestB::a"])
    status.take_event(begin("gw0", "TestA"), 0.0)
    assert status.workers["gw0"].cells(0.0)[1] == "1/2 serving.text"
    status.take_end("t.py::TestA::b")
    status.take_event(begin("gw0", "TestA"), 0.0)
    assert status.workers["gw0"].cells(0.0)[1] == "2/2 serving.text"
    status.take_event(begin("gw0", "TestC"), 0.0)
    assert status.workers["gw0"].cells(0.0)[1] == "serving.text"


def test_the_time_left_is_that_of_the_slowest_class() -> None:
    tests = ["t.py::TestA::a", "t.py::TestA::b", "t.py::TestB::a", "t.py::TestC::new"]
    status = Status(tests, {tests[0]: 100.0, tests[1]: 300.0, tests[2]: 200.0})
    for name in ("gw0", "gw1"):
        status.take_event(begin(name, "TestA"), 0.0)
    new = ", and 1 tests that it did not have"
    assert status.headline() == f"0 of 4 tests ended; about 7 min left, as in the earlier run{new}"
    status.take_rows([{"status": "pass"}, {"status": "fail"}, {"status": "pass", "taken_over": {}}])
    status.take_end(tests[1])
    assert status.headline().startswith("1 of 4 tests ended; 1 fail, 1 pass, 1 taken over; about 3")


def test_a_test_that_took_its_verdict_over_tells_no_duration() -> None:
    own = {"event": "test", "nodeid": "a", "seconds": 5.0, "rows": [{}]}
    taken = {**own, "seconds": 0.0, "rows": [{"taken_over": {}}]}
    assert durations([own, taken, {"event": "end"}]) == {"a": 5.0}
    assert json.dumps(durations([])) == "{}"


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"rows": 1},
        {"rows": [1]},
        {"seconds": "x"},
        {"seconds": None},
        {"seconds": float("nan")},
    ],
)
def test_an_event_of_another_program_tells_no_duration(more: dict[str, Any]) -> None:
    own = {"event": "test", "nodeid": "a", "seconds": 5.0, "rows": [{}]}
    other = {**own, "nodeid": "b", **more} if more else {"event": "test"}
    assert durations([other, own]) == {"a": 5.0}
