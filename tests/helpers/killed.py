"""Kills a run of the three models, as a power cut would, and resumes it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_ascend_vlm.reporting.journal import FILE_NAME, read

VARYING = {"seconds", "taken_over"}
"""The fields of a row that differ between two runs of the same tests."""


def killed(directory: Path, arguments: tuple[str, ...], until: Callable[[], bool]) -> None:
    """Starts a run with the report `killed`, and kills its process group."""
    command = [sys.executable, "-m", "pytest", "--vlm-checkpoint=tiny", "--vlm-report=killed"]
    process = subprocess.Popen(
        [*command, "--vlm-log-dir=logs", *arguments],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not until():
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ended(directory: Path) -> list[str]:
    """The tests with a verdict in the journal of a killed run."""
    path = directory / "killed" / FILE_NAME
    events = read(path) if path.is_file() else []
    tests = [event for event in events if event["event"] == "test"]
    return [test["nodeid"] for test in tests if any(_is_judged(row) for row in test["rows"])]


def _is_judged(row: dict[str, Any]) -> bool:
    # na is decided at collection here, so nothing is taken over.
    return row["status"] in {"pass", "fail", "xfail"}


def told(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows without what differs between two runs of the same tests."""
    return [_without_times(row) for row in report["rows"]]


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_times(one) for name, one in value.items() if name not in VARYING}
    return [_without_times(one) for one in value] if isinstance(value, list) else value
