"""The log directory of one run; each run has its own."""

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
    """A name for a run: its start time, so that names sort by age, and a random suffix."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class RunLogs:
    """The logs of one run, shared by its workers.

    Attributes:
        home: the directory that contains the logs of all runs.
        name: the name of the run's subdirectory.
    """

    home: Path
    name: str

    @cached_property
    def directory(self) -> Path:
        """The run's directory, created on first use.

        Directories of older runs are deleted, except the newest `KEPT_RUNS` and those in use. Each
        process of a run holds a lock, which the kernel releases when the process ends.

        Raises:
            ConfigurationError: the directory cannot be created.
        """
        directory = self.home / self.name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _lock(directory, os.O_CREAT, fcntl.LOCK_SH)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write logs to {directory} ({error.strerror}); make it writable, or name "
                "another directory with --vlm-log-dir=DIR"
            ) from error
        for old in sorted(self.home.glob(_NAMED))[:-KEPT_RUNS]:
            if old != directory:
                _remove_unless_used(old)
        return directory


def _remove_unless_used(directory: Path) -> None:
    try:
        handle = _lock(directory, 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, being removed by another run, or owned by another user
        return
    shutil.rmtree(directory, ignore_errors=True)
    os.close(handle)


def _lock(directory: Path, flags: int, kind: int) -> int:
    """Locks a run's directory until the returned handle is closed or the process ends."""
    handle = os.open(directory / _LOCK, os.O_RDWR | flags, 0o644)
    try:
        fcntl.flock(handle, kind)
    except OSError:
        os.close(handle)
        raise
    return handle
