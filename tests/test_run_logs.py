"""Where runs log: each in a directory of its own, and not for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.three_models import judge

from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.session.run_logs import KEPT_RUNS, RunLogs, new_name
from pytest_ascend_vlm.writing import unwritable_reason

CPU = ("--vlm-platform=cpu", "-k", "TestSmall and text_is_answered")


def write_runs(home: Path, count: int) -> list[Path]:
    """Earlier runs that have ended."""
    runs = [home / f"20200101-{number:06d}-abcdef" for number in range(count)]
    for run in runs:
        run.mkdir(parents=True)
        (run / ".lock").touch()
        (run / "server.log").write_text("log", "utf-8")
    return runs


def test_nothing_is_made_before_something_is_logged(tmp_path: Path) -> None:
    logs = RunLogs(tmp_path / "logs", new_name())
    assert not (tmp_path / "logs").exists()
    assert logs.directory.is_dir()


def test_two_runs_have_two_directories(tmp_path: Path) -> None:
    first, second = (RunLogs(tmp_path, new_name()).directory for _ in range(2))
    assert first != second
    assert first.parent == second.parent == tmp_path


def test_the_latest_runs_stay(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, KEPT_RUNS + 5)
    (tmp_path / "recording").mkdir()
    (tmp_path / "datasets").mkdir()
    latest = RunLogs(tmp_path, new_name()).directory
    kept = {*runs[6:], latest, tmp_path / "recording", tmp_path / "datasets"}
    assert set(tmp_path.iterdir()) == kept


HOLD = """
import sys
from pathlib import Path
from pytest_ascend_vlm.session.run_logs import RunLogs
print(RunLogs(Path(sys.argv[1]), sys.argv[2]).directory, flush=True)
sys.stdin.read()
"""


def test_a_run_that_still_runs_is_not_removed(tmp_path: Path) -> None:
    oldest, *_ = write_runs(tmp_path, KEPT_RUNS + 5)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), oldest.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline()
    first = RunLogs(tmp_path, new_name()).directory
    assert oldest.is_dir()
    assert first.is_dir()
    holder.communicate("")
    assert RunLogs(tmp_path, new_name()).directory.is_dir()
    assert not oldest.exists()


def test_a_place_that_cannot_be_written_to_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"Not a directory.*--vlm-log-dir=DIR"):
        _ = RunLogs(tmp_path / "file", new_name()).directory


def test_a_message_names_the_path_that_is_there(three_models: Path) -> None:
    for _ in range(2):
        done, _ = judge(three_models, *CPU, STAND_IN='{"exit": 3}')
        (path,) = {
            line.split("whole log: ")[1].rstrip(")")
            for line in done.stdout.splitlines()
            if "whole log: " in line
        }
        assert (three_models / path).is_file()
    assert len(list((three_models / "logs").glob("*/*.log"))) == 2


def test_the_workers_of_a_run_share_its_directory(three_models: Path) -> None:
    done, _ = judge(three_models, "--vlm-platform=cpu", "-k", "text_is_answered and sum", "-n", "2")
    assert done.returncode == 0, done.stdout
    (run,) = (three_models / "logs").iterdir()
    assert len(list(run.glob("*.log"))) == 3


# --- what cannot be written to is told before anything runs ------------------------------------


def test_a_directory_is_tried_without_a_trace(tmp_path: Path) -> None:
    assert unwritable_reason(tmp_path) is None
    assert unwritable_reason(tmp_path / "not" / "yet") is None
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert unwritable_reason(tmp_path / "file") == "Not a directory"
    assert unwritable_reason(tmp_path / "file" / "below") == "Not a directory"
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert unwritable_reason(tmp_path / "nowhere") == "No such file or directory"
    assert unwritable_reason(Path("/proc/nowhere"))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "nowhere"}


@pytest.mark.parametrize("option", ["--vlm-report", "--vlm-log-dir"])
def test_an_unwritable_directory_is_one_line(option: str, project: pytest.Pytester) -> None:
    (project.path / "file").touch()
    result = project.runpytest_inprocess(f"{option}=file/dir", "-p", "no:hypothesispytest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: cannot write to {option}=file/dir (Not a directory); name another *"]
    )
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "collected" not in result.stdout.str()


def test_an_unwritable_root_is_told_before_a_server_starts(three_models: Path) -> None:
    (three_models / ".vlm-logs").touch()
    command = [sys.executable, "-m", "pytest", *CPU, "--vlm-checkpoint=tiny"]
    done = subprocess.run(command, cwd=three_models, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert "name another directory with --vlm-log-dir=DIR" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_report_that_the_disk_refuses_at_the_end_costs_no_verdict(
    three_models: Path,
) -> None:
    (three_models / "report" / "report.json").mkdir(parents=True)
    done, _ = judge(three_models, *CPU)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "the report could not be written to report: Is a directory" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 of 1 criteria verified")
    assert "Traceback" not in done.stdout
