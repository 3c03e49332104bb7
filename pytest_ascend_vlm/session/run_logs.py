"""The directory of one run's logs, so that runs in one place keep theirs apart."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import ConfigurationError

KEPT_RUNS = 20
_LOCK = ".lock"
_NAMED = "[0-9]" * 8 + "-" + "[0-9]" * 6 + "-" + "[0-9a-f]" * 6


def new_name() -> str:
    """A name for a run: when it began, which also is the order of names, and chance."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class RunLogs:
    """The logs of one run; its workers share them.

    Attributes:
        home: the directory of all runs.
        name: the run's own name there.
    """

    home: Path
    name: str

    @cached_property
    def directory(self) -> Path:
        """The run's directory, made when something is first logged.

        Of earlier runs the newest `KEPT_RUNS` stay, and every one that still runs: each of its
        processes holds a lock, which the kernel gives back when it is gone.

        Raises:
            ConfigurationError: it cannot be made.
        """
        directory = self.home / self.name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _lock(directory, os.O_CREAT, fcntl.LOCK_SH)
        except OSError as error:
            raise ConfigurationError(
                f"nothing can be logged in {directory} ({error.strerror}): free it, or name "
                "another place with --vlm-log-dir=DIR"
            ) from error
        for old in sorted(self.home.glob(_NAMED))[:-KEPT_RUNS]:
            if old != directory:
                _remove_unless_used(old)
        return directory


def _remove_unless_used(directory: Path) -> None:
    try:
        handle = _lock(directory, 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is used, another run removes it, or it is someone else's
        return
    shutil.rmtree(directory, ignore_errors=True)
    os.close(handle)


def _lock(directory: Path, flags: int, kind: int) -> int:
    """Locks a run's directory until the handle is closed, at the latest with the process."""
    handle = os.open(directory / _LOCK, os.O_RDWR | flags, 0o644)
    try:
        fcntl.flock(handle, kind)
    except OSError:
        os.close(handle)
        raise
    return handle
