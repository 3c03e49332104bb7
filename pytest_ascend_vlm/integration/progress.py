"""Shows progress: a line that is rewritten on a terminal, or a line every 10 seconds in a log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import pytest

from .activity import JUDGING

_LOG_EVERY_SECONDS = 10.0


class Progress:
    """Shows progress on pytest's terminal, bypassing its output capture."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._shown_at = time.monotonic()

    def take_event(self, event: Mapping[str, Any]) -> None:
        """Shows the step of a process."""
        if event["event"] != "phase" or event["phase"] == JUDGING:
            return
        seconds = "" if event["seconds"] is None else f"{event['seconds']:.0f} s"
        words = (event["phase"], event["detail"], seconds)
        self._show(f"{event.get('model') or 'run'}: {' '.join(filter(None, words))}")

    def _show(self, line: str) -> None:
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
