"""Finds model files without importing them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_SUBCLASSED = b"VLMConformance"
# The defaults of pytest's python_files and norecursedirs.
_NAMED = ("test_*.py", "*_test.py")
_IGNORED = ("*.egg", ".*", "_darcs", "build", "CVS", "dist", "node_modules", "venv", "{arch}")


def model_files(config: pytest.Config) -> Iterator[Path]:
    """The test files among pytest's arguments that mention the suite."""
    named, ignored = config.getini("python_files"), config.getini("norecursedirs")
    for argument in config.args:
        path = config.invocation_params.dir / str(argument).partition("::")[0]
        yield from model_files_in(path, named, ignored)


def model_files_in(
    path: Path, named: Sequence[str] = _NAMED, ignored: Sequence[str] = _IGNORED
) -> Iterator[Path]:
    """The test files in a directory, or the file itself, that mention the suite.

    Args:
        path: a directory or a file.
        named: patterns of the names that test files have.
        ignored: patterns of directories that are not searched.
    """
    if path.is_file() and _mentions_suite(path):
        yield path
    for directory, subdirectories, names in os.walk(path):
        subdirectories[:] = sorted(name for name in subdirectories if not _matches(name, ignored))
        tests = (Path(directory, name) for name in sorted(names) if _matches(name, named))
        yield from filter(_mentions_suite, tests)


def _mentions_suite(path: Path) -> bool:
    return _SUBCLASSED in path.read_bytes()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
