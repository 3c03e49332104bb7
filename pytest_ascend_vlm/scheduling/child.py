"""The test process of a host: pytest, with the options of the driver and the tests of one class.

Run as `python -m pytest_ascend_vlm.scheduling.child ROOT WORK CHANNEL TMPDIR`. To the plugin it
is a worker, like those of xdist: it writes no report, and sends its events to the process that
prints.
The reports of its tests go the same way. Its own output is a log on its host.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ..integration.workers import become_worker, own_messages
from ..processes.shared_tmp import use_shared_tmp
from .work import Message, Work


class Channel:
    """Appends messages to a file, one line each."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, message: Message) -> None:
        """Appends a message."""
        self._file.write(json.dumps(message) + "\n")

    def send(self, event: Mapping[str, Any]) -> None:
        """Appends an event; the name is that of a channel of xdist."""
        self.write({"event": event})


class Judged:
    """Selects the tests of this process, and sends their reports."""

    def __init__(self, config: pytest.Config, tests: frozenset[str], channel: Channel) -> None:
        self._config = config
        self._tests = tests
        self._channel = channel

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keeps the tests that the driver selected and that have not ended yet."""
        items[:] = [item for item in items if item.nodeid in self._tests]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Sends the report of a test."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._channel.write({"report": data})


def main(argv: list[str]) -> int:
    """Runs the tests of the file `argv[1]` and writes messages to the file `argv[2]`."""
    use_shared_tmp(argv[3])
    root, path, channel = Path(argv[0]), Path(argv[1]), Channel(Path(argv[2]))
    work = Work.from_text(path.read_text("utf-8"))
    arguments = [str(root / work.suite_class), f"--rootdir={root}"]
    if work.ini is not None:
        arguments += ["-c", str(root / work.ini)]
    config = pytest.Config.fromdictargs(work.options, arguments)
    become_worker(config, work.run_name, channel, work.earlier)
    config.pluginmanager.register(Judged(config, work.tests, channel), "ascend_vlm_judged")
    exit_code: int = config.hook.pytest_cmdline_main(config=config)
    print(*own_messages(config), sep="\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
