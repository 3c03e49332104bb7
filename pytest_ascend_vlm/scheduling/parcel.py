"""The part of a project that travels to the hosts of a cluster: code, cases and goldens."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ..errors import ConfigurationError

LIMIT_MIB = 400
"""Ray itself refuses more than 512 MiB, compressed."""

_SHOWN = 3


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

    Args:
        root: the project's root directory.
        ignored: patterns of names of directories that pytest does not search.
        elsewhere: directories that stay, if they are below the root: weights, logs, reports.

    Raises:
        ConfigurationError: the files are too large; the message names the largest directories.
    """
    patterns, own = tuple(ignored), {path.resolve() for path in elsewhere}
    excluded, sizes = [], Counter[str]()
    for directory, subdirectories, names in os.walk(root):
        stays = [name for name in subdirectories if _stays(Path(directory, name), patterns, own)]
        subdirectories[:] = [name for name in subdirectories if name not in stays]
        excluded += [f"/{Path(directory, name).relative_to(root).as_posix()}/" for name in stays]
        place = Path(directory).relative_to(root).parts[:1]
        sizes["/".join(place) or "."] += sum(_sizes(directory, names))
    total = sum(sizes.values())
    if total > LIMIT_MIB * 2**20:
        largest = ", ".join(
            f"{name} ({size / 2**20:.0f} MiB)" for name, size in sizes.most_common(_SHOWN)
        )
        raise ConfigurationError(
            f"--vlm-ray: {total / 2**20:.0f} MiB of {root} would travel to each host, at most "
            f"{LIMIT_MIB} can. The largest directories are {largest}. Move weights and data sets "
            "out of the project, or list them in its .gitignore or norecursedirs."
        )
    return Parcel(root, tuple(excluded))


def _stays(directory: Path, ignored: Iterable[str], own: Iterable[Path]) -> bool:
    name = directory.name
    return (
        name.startswith(".")
        or name == "__pycache__"
        or any(fnmatch(name, pattern) for pattern in ignored)
        or directory.resolve() in own
        or (directory / "pyvenv.cfg").is_file()
    )


def _sizes(directory: str, names: Iterable[str]) -> Iterator[int]:
    for name in names:
        path = Path(directory, name)
        if path.is_file():
            yield path.stat().st_size
