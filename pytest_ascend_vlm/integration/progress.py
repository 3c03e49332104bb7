"""Shows progress: a line that is rewritten on a terminal, or a line every 10 seconds in a log."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

_LOG_EVERY_SECONDS = 10.0


class Progress:
    """Shows progress on pytest's terminal, bypassing its output capture.

    A worker process of xdist has no terminal and shows nothing.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._shown_at = time.monotonic()

    def __call__(self, line: str) -> None:
        """Shows a line of progress."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        with self._uncaptured():
            if terminal.isatty:
                terminal.rewrite(line, erase=True)
            elif time.monotonic() - self._shown_at >= _LOG_EVERY_SECONDS:
                terminal.ensure_newline()
                terminal.line(line)
                self._shown_at = time.monotonic()

    def _uncaptured(self) -> contextlib.AbstractContextManager[Any]:
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is None:
            return contextlib.nullcontext()
        manager: contextlib.AbstractContextManager[Any] = capture.global_and_fixture_disabled()
        return manager
