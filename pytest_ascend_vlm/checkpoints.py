"""Finds the weights a model runs with and identifies them by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError
from .spec import ModelSpec

_WHOLE_BYTES = 64 * 2**20
_SAMPLE_BYTES = 2**20
_SAMPLES = 64


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        kind: "full" or "tiny".
        path: its directory.
        weights_sha256: see `weights_digest`.
    """

    kind: str
    path: Path
    weights_sha256: str


def find_checkpoint(
    model: ModelSpec, kind: str, fixture_roots: Sequence[Path], weights_root: Path | None
) -> Checkpoint:
    """The checkpoint of a model.

    Raises:
        CheckpointError: it is not there; the message says how to get it.
    """
    path = _tiny(model, fixture_roots) if kind == "tiny" else _full(model, weights_root)
    return Checkpoint(kind, path, weights_digest(path))


def _tiny(model: ModelSpec, fixture_roots: Sequence[Path]) -> Path:
    if model.tiny is None:
        raise CheckpointError(
            f"{model.model_id} names no tiny checkpoint; set ModelSpec(tiny=...) to a name under "
            "fixtures/tiny/ or to a path."
        )
    for candidate in (Path(model.tiny), *(root / "tiny" / model.tiny for root in fixture_roots)):
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    searched = ", ".join(str(root / "tiny") for root in fixture_roots)
    raise CheckpointError(f"there is no tiny checkpoint {model.tiny!r} in {searched}.")


def _full(model: ModelSpec, weights_root: Path | None) -> Path:
    if weights_root is None:
        raise CheckpointError(
            f"say where the weights of {model.model_id} are with --vlm-weights-root=DIR; they are "
            f"expected in DIR/{model.model_id}. {_download(model, Path('DIR'))}"
        )
    path = weights_root / model.model_id
    if not (path / "config.json").is_file():
        raise CheckpointError(f"there is no checkpoint in {path}. {_download(model, weights_root)}")
    return path.resolve()


def _download(model: ModelSpec, root: Path) -> str:
    return (
        f"To download it: modelscope download --model {model.model_id} "
        f"--local_dir {root / model.model_id}"
    )


def weights_digest(path: Path) -> str:
    """SHA-256 over names, sizes and content of the weight files of a checkpoint.

    Of a file above 64 MiB only 64 evenly spaced MiB are read, so that the digest of a 64 GB
    checkpoint takes a second: it tells checkpoints apart, it is no proof of integrity.

    Raises:
        CheckpointError: there are no weight files.
    """
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.bin")])
    if not files:
        raise CheckpointError(f"{path} has no weights (*.safetensors or *.bin).")
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        _hash_content(file, total)
    return total.hexdigest()


def _hash_content(file: Path, total: hashlib._Hash) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            total.update(stream.read())
            return
        for sample in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            total.update(stream.read(_SAMPLE_BYTES))
