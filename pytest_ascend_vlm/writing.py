"""Writes files atomically: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PROBED_BYTES = 2**16  # about the size of a report


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file through a temporary file in the same directory; creates the directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Lets one process at a time read and rewrite the files of a directory; creates it."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def unwritable_reason(directory: Path) -> str | None:
    """Reason why no file can be written to a directory, or None.

    The directory may not exist yet. The check leaves no file behind.
    """
    nearest = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=nearest) as probe:
            probe.write(bytes(_PROBED_BYTES))
    except OSError as error:
        return error.strerror
    return None
