"""The files that a command writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import ConfigurationError
from ..reporting import write_files


def write_output(files: Mapping[str, str | bytes], directory: Path) -> list[Path]:
    """Writes the files of a command.

    Raises:
        ConfigurationError: the directory cannot be written to.
    """
    with writing_to(directory):
        return write_files(files, directory)


@contextlib.contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Tells in one line that a directory cannot be written to."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {directory} ({error.strerror}); name another directory with --output."
        ) from error
