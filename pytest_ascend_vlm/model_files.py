"""Finds model files without importing them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ConfigurationError

if TYPE_CHECKING:
    import pytest

_SUBCLASSED = b"VLMConformance"
# The defaults of pytest's python_files and norecursedirs.
_NAMED = ("test_*.py", "*_test.py")
_IGNORED = ("*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}")


def model_files(config: pytest.Config) -> Iterator[Path]:
    """The test files among pytest's arguments that mention the suite.

    A file that cannot be read is left out: pytest or the gate reports what is missing.
    """
    named, ignored = config.getini("python_files"), config.getini("norecursedirs")
    for argument in config.args:
        path = config.invocation_params.dir / str(argument).partition("::")[0]
        yield from filter(_is_model_file, _test_files(path, named, ignored))


def model_files_in(
    path: Path, named: Sequence[str] = _NAMED, ignored: Sequence[str] = _IGNORED
) -> Iterator[Path]:
    """The test files in a directory, or the file itself, that mention the suite.

    Args:
        path: a directory or a file.
        named: patterns of the names that test files have.
        ignored: patterns of directories that are not searched.

    Raises:
        ConfigurationError: a test file cannot be read.
    """
    return filter(_mentions_suite, _test_files(path, named, ignored))


def _test_files(path: Path, named: Sequence[str], ignored: Sequence[str]) -> Iterator[Path]:
    if path.is_file():
        yield path
    for directory, subdirectories, names in os.walk(path):
        subdirectories[:] = sorted(name for name in subdirectories if not _matches(name, ignored))
        yield from (Path(directory, name) for name in sorted(names) if _matches(name, named))


def _is_model_file(path: Path) -> bool:
    try:
        return _mentions_suite(path)
    except ConfigurationError:
        return False


def _mentions_suite(path: Path) -> bool:
    try:
        return _SUBCLASSED in path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error.strerror}), and it may be a model file. Make it "
            "readable, or remove it."
        ) from error


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
