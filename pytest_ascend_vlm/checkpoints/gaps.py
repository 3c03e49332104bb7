"""The signs that a copy of a checkpoint is incomplete: a download or a clone that did not end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .digest import weight_files
from .hub_caches import Copy

_POINTER = b"version https://git-lfs.github.com/spec"
_POINTER_BYTES = 1024  # git-lfs writes no larger pointer
# The files that vLLM and Transformers read. A missing picture of a README is no gap.
_READ = frozenset({".safetensors", ".bin", ".json", ".model", ".txt", ".jinja", ".tiktoken", ".py"})
_OF_TRAINING = frozenset({"optimizer.bin", "scheduler.bin", "training_args.bin"})
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_DAMAGED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a file can raise whose JSON has another structure."""


def gaps(copy: Copy) -> Iterator[str]:
    """The signs that a copy is incomplete, the most telling one first."""
    for partial in _partial_downloads(copy.downloads):
        yield (
            f"{partial} was not downloaded completely (delete it if no download is running and "
            "another download does not remove it)"
        )
    for link in _dangling_links(copy.path):
        yield f"{link.name} is a link to {link.readlink()}, which is missing"
    if not (copy.path / "config.json").is_file():
        yield "config.json is missing"
    if pointers := _pointers(copy.path):
        yield (
            f"{pointers[0].name} is a pointer of git-lfs instead of the file ({len(pointers)} "
            f"such files): run `git lfs pull` in {copy.path}"
        )
    files = _read_weights(copy.path)
    yield from _missing_shards(copy.path, files)
    if not files:
        yield "it contains no weights (*.safetensors or *.bin)"
    yield from filter(None, map(_damage, files))


def _partial_downloads(directory: Path) -> list[Path]:
    """Files that a hub's client has not finished: of a cache, or of a plain directory."""
    places = (directory / "blobs", directory / ".cache" / "huggingface" / "download")
    found = [path for place in places for path in place.rglob("*.incomplete")]
    return sorted([*directory.glob("*.incomplete"), *found])


def _dangling_links(directory: Path) -> list[Path]:
    """Links to files that are missing, but for those of git and of hidden caches."""
    visible = (
        path
        for path in directory.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )
    return sorted(path for path in visible if not path.exists())


def _read_weights(directory: Path) -> list[Path]:
    """The weight files that an engine reads: *.bin only where there are no safetensors."""
    files = [file for file in weight_files(directory) if file.name not in _OF_TRAINING]
    return [file for file in files if file.suffix == ".safetensors"] or files


def _pointers(directory: Path) -> list[Path]:
    """The files in whose place a clone without git-lfs left a pointer, weights first."""
    small = [
        path
        for path in directory.iterdir()
        if path.suffix in _READ and path.is_file() and path.stat().st_size < _POINTER_BYTES
    ]
    found = [path for path in small if path.read_bytes().startswith(_POINTER)]
    weights = weight_files(directory)
    return sorted(found, key=lambda path: (path not in weights, path.name))


def _missing_shards(directory: Path, files: Sequence[Path]) -> Iterator[str]:
    """The shards that are missing by the index, or without an index by the names of the others.

    Where there are safetensors, nothing reads *.bin, and its index may have come without it.
    """
    present = {path.name for path in files}
    indices = sorted(directory.glob("*.safetensors.index.json"))
    if not indices and not any(name.endswith(".safetensors") for name in present):
        indices = sorted(directory.glob("*.bin.index.json"))
    for index in indices:
        shards = _named_by(index)
        if shards is None:
            yield f"{index.name} is damaged"
        elif absent := sorted(shards - present):
            yield f"{index.name} names {absent[0]}, which is missing ({_of(absent, shards)})"
    if not indices:
        shards = _named_by_others(present)
        if absent := sorted(shards - present):
            yield f"{absent[0]} is missing ({_of(absent, shards)})"


def _named_by(index: Path) -> set[str] | None:
    """The shards that an index names; None if it is damaged."""
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, *_DAMAGED):
        return None
    return names if all(isinstance(name, str) for name in names) else None


def _named_by_others(present: Iterable[str]) -> set[str]:
    """The shards that must exist by the names of those that do: `model-00001-of-00003`."""
    named: set[str] = set()
    for shard in filter(None, map(_SHARD.fullmatch, present)):
        stem, count, suffix = shard["stem"], shard["count"], shard["suffix"]
        named |= {f"{stem}-{i:05}-of-{count}{suffix}" for i in range(1, int(count) + 1)}
    return named


def _of(absent: Sequence[str], shards: Iterable[str]) -> str:
    return f"{len(absent)} of {len(set(shards))}"


def _damage(file: Path) -> str | None:
    """The damage of a weight file that its size or its header shows, or None."""
    size = file.stat().st_size
    if size == 0:
        return f"{file.name} is empty"
    if file.suffix != ".safetensors":
        return None
    needed = _needed_bytes(file)
    if needed is None:
        return f"{file.name} is damaged: it does not begin with the header of safetensors"
    if needed > size:
        return f"{file.name} is cut off: it has {size} bytes, and its header needs {needed}"
    return None


def _needed_bytes(file: Path) -> int | None:
    """Bytes of the header of a safetensors file and of the tensors in it; None if there is none."""
    with file.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or 8 + length > file.stat().st_size:
            return 8 + length
        header = stream.read(length)
    try:
        tensors = [one for name, one in json.loads(header).items() if name != "__metadata__"]
        return 8 + length + max((int(one["data_offsets"][1]) for one in tensors), default=0)
    except _DAMAGED:
        return None
