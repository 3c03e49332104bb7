"""The part of a project that travels to the hosts of a cluster: code, cases and goldens."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

LIMIT_MIB = 400
"""Ray itself refuses more than 512 MiB, compressed."""

_SHOWN = 3
# Ray leaves out what these files list, in each directory.
_IGNORE_FILES = (".gitignore", ".rayignore")


@dataclass(frozen=True)
class Parcel:
    """The files of a project that travel.

    Attributes:
        root: the project's root directory.
        excluded: directories below it that stay here, as patterns of a .gitignore.
    """

    root: Path
    excluded: tuple[str, ...]


def parcel(root: Path, ignored: Iterable[str], elsewhere: Iterable[Path]) -> Parcel:
    """The files of a project that travel; hidden directories and virtual environments stay.

    Ray follows links to directories, so the files behind one travel as well.

    Args:
        root: the project's root directory.
        ignored: patterns of names of directories that pytest does not search.
        elsewhere: directories that stay, if they are below the root, or linked from there: weights,
            logs, reports.

    Raises:
        ConfigurationError: the files are too large; the message names the largest directories. Or
            the package that reads a .gitignore is not installed.
    """
    staying = _Staying(root, tuple(ignored), frozenset(path.resolve() for path in elsewhere))
    excluded, sizes = [], Counter[str]()
    lists: dict[Path, tuple[_List, ...]] = {}
    for name, subdirectories, names in os.walk(root, followlinks=True):
        directory = Path(name)
        own = lists[directory] = (*lists.get(directory.parent, ()), *_lists(directory))
        below = [directory / one for one in subdirectories if not _is_listed(directory / one, own)]
        stays = [one for one in below if staying.has(one)]
        subdirectories[:] = [one.name for one in below if one not in stays]
        excluded += [f"/{glob.escape(one.relative_to(root).as_posix())}" for one in stays]
        files = (directory / one for one in names)
        place = "/".join(directory.relative_to(root).parts[:1]) or "."
        sizes[place] += sum(_size(one) for one in files if not _is_listed(one, own))
    _require_small(root, sizes)
    return Parcel(root, tuple(excluded))


@dataclass(frozen=True)
class _Staying:
    """The directories that stay, whatever a .gitignore lists."""

    root: Path
    ignored: Sequence[str]
    elsewhere: frozenset[Path]

    def has(self, directory: Path) -> bool:
        name = directory.name
        return (
            name.startswith(".")
            or name == "__pycache__"
            or any(fnmatch(name, pattern) for pattern in self.ignored)
            or (directory / "pyvenv.cfg").is_file()
            or self._is_elsewhere(directory.resolve())
            or _is_loop(directory)
        )

    def _is_elsewhere(self, directory: Path) -> bool:
        root = self.root.resolve()
        return any(
            directory.is_relative_to(one) and not root.is_relative_to(one) for one in self.elsewhere
        )


@dataclass(frozen=True)
class _List:
    """What a .gitignore lists, and the directory that it is in."""

    directory: Path
    spec: GitIgnoreSpec


def _lists(directory: Path) -> list[_List]:
    files = [directory / name for name in _IGNORE_FILES if (directory / name).is_file()]
    if not files:
        return []
    try:
        from pathspec import GitIgnoreSpec
    except ImportError as error:
        raise ConfigurationError(
            f"--vlm-ray: what {files[0]} lists does not travel, and the package that reads it is "
            "not installed: pip install 'pytest-ascend-vlm[ray]'"
        ) from error
    return [_List(directory, GitIgnoreSpec.from_lines(_lines(one))) for one in files]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except ValueError as error:
        raise ConfigurationError(
            f"--vlm-ray: {path} is not UTF-8, and Ray reads it as well; save it as UTF-8."
        ) from error


def _is_listed(path: Path, lists: Iterable[_List]) -> bool:
    # Ray does not end a directory with a slash either: a pattern with one matches its files only.
    return any(one.spec.match_file(path.relative_to(one.directory)) for one in lists)


def _is_loop(directory: Path) -> bool:
    """True for a link to a directory that it is in."""
    return directory.is_symlink() and directory.parent.resolve().is_relative_to(directory.resolve())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _require_small(root: Path, sizes: Counter[str]) -> None:
    if (total := sizes.total()) <= LIMIT_MIB * 2**20:
        return
    largest = ", ".join(
        f"{name} ({size / 2**20:.0f} MiB)" for name, size in sizes.most_common(_SHOWN)
    )
    raise ConfigurationError(
        f"--vlm-ray: {total / 2**20:.0f} MiB of {root} would travel to each host, at most "
        f"{LIMIT_MIB} can. The largest directories are {largest}. Move weights and data sets "
        "out of the project, or list them in its .gitignore or norecursedirs."
    )
