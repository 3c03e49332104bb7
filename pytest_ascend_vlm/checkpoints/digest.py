"""The digest that identifies a checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import CheckpointError

_WHOLE_BYTES = 64 * 2**20
_SAMPLE_BYTES = 2**20
_SAMPLES = 64


def weights_digest(path: Path) -> str:
    """SHA-256 of the names, sizes and contents of a checkpoint's weight files.

    Reads only 64 evenly spaced MiB of a file larger than 64 MiB. So the digest of a 64 GB
    checkpoint takes a second. It identifies a checkpoint, but does not prove its integrity.

    Raises:
        CheckpointError: if there are no weight files.
    """
    files = weight_files(path)
    if not files:
        raise CheckpointError(f"{path} contains no weights (*.safetensors or *.bin).")
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        _hash_content(file, total)
    return total.hexdigest()


def weight_files(path: Path) -> list[Path]:
    """The weight files of a checkpoint, sorted by name."""
    files = (*path.glob("*.safetensors"), *path.glob("*.bin"))
    return sorted(file for file in files if file.is_file())


def _hash_content(file: Path, total: hashlib._Hash) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            total.update(stream.read())
            return
        for sample in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            total.update(stream.read(_SAMPLE_BYTES))
