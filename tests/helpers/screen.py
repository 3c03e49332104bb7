"""A terminal of a test: runs a command in it, and keeps what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping
from pathlib import Path

_PART = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """What a terminal of unlimited height shows."""

    def __init__(self) -> None:
        self.rows: list[str] = [""]
        self._row = self._column = 0

    def write(self, text: str) -> None:
        for number, command, control, words in _PART.findall(text):
            count = int(number) if number.isdigit() else 1
            if words:
                self._put(words)
            elif control == "\r":
                self._column = 0
            elif control == "\n":
                self._row += 1
                self.rows += [""] * (self._row + 1 - len(self.rows))
            elif command == "A":
                self._row -= count
            elif command == "C":
                self._column += count
            elif command == "J":
                self.rows[self._row] = self.rows[self._row][: self._column]
                del self.rows[self._row + 1 :]

    def _put(self, words: str) -> None:
        row = self.rows[self._row].ljust(self._column)
        end = self._column + len(words)
        self.rows[self._row] = row[: self._column] + words + row[end:]
        self._column = end


def in_terminal(
    command: list[str], directory: Path, environment: Mapping[str, str]
) -> tuple[str, Screen, int]:
    """Runs a command in a terminal of 120 columns; its raw output, the screen, the exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execvpe(command[0], command, {**os.environ, **environment})  # noqa: S606
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    raw = b""
    try:
        while data := os.read(terminal, 65536):
            raw += data
    except OSError:  # the command has ended
        pass
    _, status = os.waitpid(pid, 0)
    text, screen = raw.decode("utf-8"), Screen()
    screen.write(text)
    return text, screen, os.waitstatus_to_exitcode(status)
