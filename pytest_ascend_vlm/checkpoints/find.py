"""Finds the complete weights of a model, in its pinned revision, and computes their digest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..spec.model import ModelSpec
from .digest import weight_files, weights_digest
from .hub_caches import Copy, hub_caches, plain_copies, prefers_modelscope


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        kind: "full" or "tiny".
        path: its directory.
        weights_sha256: see `weights_digest`.
        revision: the commit of its files; None if nothing on disk shows it.
    """

    kind: str
    path: Path
    weights_sha256: str
    revision: str | None = None


def find_checkpoint(
    model: ModelSpec, kind: str, fixture_roots: Sequence[Path], weights_root: Path | None
) -> Checkpoint:
    """Finds the checkpoint of a model.

    Searches full weights only in `weights_root` if it is given, else in the caches of ModelScope
    and Hugging Face.

    Args:
        model: the model.
        kind: "full" or "tiny".
        fixture_roots: directories that contain `tiny/`.
        weights_root: directory of full weights, `<root>/<organisation>/<name>`.

    Raises:
        CheckpointError: if it is missing, incomplete or of another revision; the message contains
            the download command.
    """
    if kind == "tiny":
        path = _tiny(model, fixture_roots)
        return Checkpoint(kind, path, weights_digest(path))
    copy = _full(model, weights_root)
    revision = next(iter(copy.revisions)) if len(copy.revisions) == 1 else None
    return Checkpoint(kind, copy.path, weights_digest(copy.path), revision)


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
    raise CheckpointError(
        f"there is no tiny checkpoint {model.tiny!r} in {searched}, nor a directory "
        f"{Path(model.tiny).resolve()} with a config.json; ModelSpec(tiny=...) is a name or a path."
    )


def _full(model: ModelSpec, weights_root: Path | None) -> Copy:
    """The first copy without a problem; copies of the pinned revision are tried first."""
    places, copies = _search(model, weights_root)
    rejected = []
    for copy in sorted(copies, key=lambda copy: model.revision not in copy.revisions):
        problem = _problem(copy, model.revision)
        if problem is None:
            return copy
        rejected.append(f"  {copy.path}: {problem}")
    download = _download(model, weights_root)
    if rejected:
        unusable = [f"the weights of {model.model_id} on this machine cannot be used:", *rejected]
        raise CheckpointError("\n".join([*unusable, download]))
    absent = f"the weights of {model.model_id} are not in {places}."
    raise CheckpointError("\n".join([absent, *_misplaced(model, weights_root), download]))


def _misplaced(model: ModelSpec, weights_root: Path | None) -> Iterable[str]:
    """The correction if `--vlm-weights-root` is the directory of the model or its organisation."""
    *above, name = Path(model.model_id).parts
    for directory in [weights_root, weights_root / name] if weights_root is not None else []:
        if not (directory / "config.json").is_file():
            continue
        path = directory.resolve()
        if path.parts[-len(above) - 1 :] == (*above, name):
            yield f"But {path} exists: type --vlm-weights-root={path.parents[len(above)]}."
        else:
            yield (
                f"But {path} has a config.json. If that is the model, make DIR/{model.model_id} a "
                "link to it (ln -s), and type --vlm-weights-root=DIR."
            )


def _search(model: ModelSpec, weights_root: Path | None) -> tuple[str, list[Copy]]:
    """The places searched for full weights, as text, and the copies found there."""
    if weights_root is not None:
        directory = weights_root / model.model_id
        return str(directory), list(plain_copies(directory))
    caches = hub_caches()
    copies = [
        copy for cache in caches for copy in cache.find(cache.root, model.model_id, model.revision)
    ]
    return " or ".join(f"{cache.name} ({cache.root})" for cache in caches), copies


def _problem(copy: Copy, pinned: str | None) -> str | None:
    """Reason why a copy cannot be used, or None."""
    if pinned is not None and copy.revisions - {pinned}:
        known = " and ".join(sorted(copy.revisions))
        return f"it has revision {known}, but the model is pinned to {pinned}"
    if not copy.unambiguous:
        return "one of several snapshots; choose one with ModelSpec(revision=...)"
    return next(iter(_gaps(copy)), None)


def _gaps(copy: Copy) -> Iterable[str]:
    """The signs of an incomplete download."""
    for partial in sorted(copy.downloads.rglob("*.incomplete")):
        yield (
            f"{partial} was not downloaded completely (delete it if no download is running and "
            "another download does not remove it)"
        )
    for link in sorted(path for path in copy.path.rglob("*") if not path.exists()):
        yield f"{link.name} is a link to {link.readlink()}, which is missing"
    if not (copy.path / "config.json").is_file():
        yield "config.json is missing"
    index = copy.path / "model.safetensors.index.json"
    if index.is_file():
        yield from _missing_shards(index)
    if not weight_files(copy.path):
        yield "it contains no weights (*.safetensors or *.bin)"


def _missing_shards(index: Path) -> Iterable[str]:
    try:
        shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError):
        yield f"{index.name} is damaged"
        return
    absent = [name for name in shards if not (index.parent / name).is_file()]
    if absent:
        yield f"{index.name} names {absent[0]}, which is missing ({len(absent)} of {len(shards)})"


def _download(model: ModelSpec, weights_root: Path | None) -> str:
    """The command that downloads the right checkpoint to the right place."""
    revision = ["--revision", model.revision] if model.revision else []
    hugging_face = ["hf", "download", model.model_id, *revision]
    modelscope = ["modelscope", "download", "--model", model.model_id, *revision]
    elsewhere = f" Weights in DIR/{model.model_id} are found with --vlm-weights-root=DIR."
    if weights_root is not None:
        directory = str(weights_root / model.model_id)
        hugging_face += ["--local-dir", directory]
        modelscope += ["--local_dir", directory]
        elsewhere = ""
    commands = [modelscope] if prefers_modelscope() else [hugging_face, modelscope]
    return f"To download them: {', or: '.join(map(shlex.join, commands))}.{elsewhere}"
