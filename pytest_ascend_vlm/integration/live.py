"""Shows what every worker does: a block below pytest's output, or lines every 30 s in a log."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import pytest

from ..control_characters import without_terminal_codes
from ..reporting.journal import Event
from .outcomes import EVIDENCE
from .status import Status, durations

_LOG_EVERY_SECONDS = 30.0
_REDRAWN_EVERY_SECONDS = 0.5
_ERASE_BELOW = "\x1b[J"


class Live:
    """Shows the state of a run on pytest's terminal; nothing with `-q`.

    A terminal is redrawn. Where other output may be written past pytest (`-s`, `--pdb`) and in a
    log, lines are added.

    Attributes:
        status: the state of the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.status = Status()
        self._config = config
        # Workers of xdist send their events from threads of their own.
        self._lock = threading.RLock()
        self._block: Block | None = None
        self._shown_at = time.monotonic()
        self._is_over = False

    def take_event(self, event: Mapping[str, Any]) -> None:
        """Takes an event of a worker, and shows the state."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None or self._config.get_verbosity() < 0:
            return
        with self._lock:
            self.status.take_event(event, time.monotonic())
            if not self._is_over:
                self._show(terminal)

    def begin(self, tests: Sequence[str], before: Iterable[Event]) -> None:
        """Takes the selected tests, and the events of an earlier run, which tell their durations.

        Args:
            tests: node ids of the tests.
            before: the events; none if there was no earlier run.
        """
        known = durations(before)  # a long file to read, for which no event waits
        with self._lock:
            self.status.begin(tests, known)

    def take_report(self, report: pytest.TestReport) -> None:
        """Counts the rows of a test's report, and shows that a test has ended."""
        if str(report.outcome) == "rerun":
            return
        evidence = getattr(report, EVIDENCE, ())
        with self._lock:
            self.status.take_rows(value for name, value in evidence if name == "vlm_row")
            if report.when not in {"setup", "call"}:
                self.status.take_end(report.nodeid)
                if self._block is not None:
                    self._block.redraw()

    def end(self) -> None:
        """Removes the block; nothing is shown any more."""
        with self._lock:
            self._is_over = True
            block, self._block = self._block, None
        if block is not None:
            block.close()

    def _show(self, terminal: pytest.TerminalReporter) -> None:
        if self._block is None and self._may_redraw(terminal):
            with self._uncaptured():  # the block keeps a handle of the terminal
                self._block = Block(terminal._tw, self.status, self._lock)
        if self._block is not None:
            self._block.redraw()
        elif time.monotonic() - self._shown_at >= _LOG_EVERY_SECONDS:
            self._shown_at = time.monotonic()
            self._add_lines(terminal)

    def _may_redraw(self, terminal: pytest.TerminalReporter) -> bool:
        options = self._config.option
        past_pytest = options.capture in {"no", "tee-sys"} or options.usepdb or options.trace
        return bool(terminal.isatty) and not past_pytest and os.environ.get("TERM") != "dumb"

    def _add_lines(self, terminal: pytest.TerminalReporter) -> None:
        now = time.monotonic()
        workers = list(self.status.workers.items())
        with self._uncaptured():
            terminal.ensure_newline()
            if terminal._tw.width_of_current_line:  # dots of workers have no file's name before
                terminal.line("")
            terminal.line(self.status.headline())
            for name, worker in workers:
                terminal.line(f"  {name}: {': '.join(filter(None, worker.cells(now)))}")

    def _uncaptured(self) -> contextlib.AbstractContextManager[Any]:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is None:
            return contextlib.nullcontext()
        manager: contextlib.AbstractContextManager[Any] = capture.global_and_fixture_disabled()
        return manager


class Block:
    """Lines below the place where pytest writes next.

    The cursor stays at that place, so all below it is erased before pytest writes, and drawn again
    afterwards. The block has a handle of the terminal of its own, because pytest redirects standard
    output while a test runs.
    """

    def __init__(self, writer: Any, status: Status, lock: threading.RLock) -> None:
        """Puts itself between pytest's terminal writer and its file.

        Args:
            writer: pytest's terminal writer.
            status: the state to show.
            lock: held while the state changes, and while the terminal is written.
        """
        self._writer = writer
        self._file: TextIO = writer._file
        self._status = status
        self._terminal = os.fdopen(
            os.dup(self._file.fileno()), "w", encoding="utf-8", errors="replace"
        )
        self._column = writer.width_of_current_line
        self._lock = lock
        self._closed = threading.Event()
        self._file.flush()
        writer._file = self
        self._thread = threading.Thread(target=self._keep_drawing, daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Writes text of pytest above the block."""
        with self._lock:
            self._terminal.write(_ERASE_BELOW + text)
            plain = without_terminal_codes(text)
            before, newline, last = plain.rpartition("\n")
            self._column = _width(last) if newline else self._column + _width(before + last)
            if "\r" in last:
                self._column = _width(last.rpartition("\r")[2])
            self.redraw()
        return len(text)

    def flush(self) -> None:
        """Does nothing: the text is already on the terminal."""

    def __getattr__(self, name: str) -> Any:
        """What else pytest asks of its file: its encoding, if it is a terminal."""
        return getattr(self._file, name)

    def redraw(self) -> None:
        """Draws the block again."""
        with self._lock:
            if self._closed.is_set():
                return
            self._terminal.flush()
            size = os.get_terminal_size(self._terminal.fileno())
            lines = list(_drawn(self._status, size.columns, size.lines // 2))
            column = min(self._column, max(size.columns - 1, 0))
            back = f"\x1b[{len(lines)}A\r" + (f"\x1b[{column}C" if column else "")
            self._terminal.write(_ERASE_BELOW + "".join(f"\n{one}" for one in lines) + back)
            self._terminal.flush()

    def close(self) -> None:
        """Erases the block and gives pytest its file back."""
        with self._lock:
            self._closed.set()
            self._writer._file = self._file
            with contextlib.suppress(OSError):
                self._terminal.write(_ERASE_BELOW)
                self._terminal.close()
        self._thread.join()

    def _keep_drawing(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone
            while not self._closed.wait(_REDRAWN_EVERY_SECONDS):
                self.redraw()


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _drawn(status: Status, columns: int, most: int) -> Iterator[str]:
    """The lines of the block, cut to the width of the terminal."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    now = time.monotonic()
    table = Table.grid(padding=(0, 2))
    for ratio in (2, 2, 2):
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
    table.add_column(no_wrap=True, justify="right")
    for name, worker in sorted(status.workers.items())[: max(most - 1, 1)]:
        owner, criterion, doing, seconds = worker.cells(now)
        table.add_row(Text(f"{name} {owner}"), Text(criterion), Text(doing), Text(seconds))
    console = Console(file=StringIO(), force_terminal=True, width=columns, highlight=False)
    with console.capture() as drawn:
        console.print(Text(status.headline(), "bold"), no_wrap=True, overflow="ellipsis")
        if status.workers:
            console.print(table)
    yield from drawn.get().rstrip("\n").split("\n")
