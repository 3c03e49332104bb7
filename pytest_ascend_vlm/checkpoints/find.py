"""Finds the complete weights of a model, in its pinned revision, and computes their digest."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError
from ..spec.model import ModelSpec
from .architecture import other_architecture
from .digest import weights_digest
from .gaps import gaps
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


@dataclass(frozen=True)
class Places:
    """The directories that the user names for checkpoints.

    Attributes:
        fixture_roots: directories that contain `tiny/`.
        weights_root: directory of full weights, `<root>/<organisation>/<name>`, or None.
        weights: model's id -> directory of its full weights.
    """

    fixture_roots: Sequence[Path] = ()
    weights_root: Path | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)

    def own(self, model: ModelSpec) -> Path | None:
        """The only directory to search for a model's full weights; None for the hubs' caches."""
        if model.model_id in self.weights:
            return self.weights[model.model_id]
        return self.weights_root and self.weights_root / model.model_id


def find_checkpoint(model: ModelSpec, kind: str, places: Places) -> Checkpoint:
    """Finds the checkpoint of a model.

    Searches full weights only in the directory that `places` names for the model, if it names one,
    else in the caches of ModelScope and Hugging Face.

    Args:
        model: the model.
        kind: "full" or "tiny".
        places: the directories that the user names.

    Raises:
        CheckpointError: if it is missing, incomplete, or of another revision or architecture; the
            message contains the download command.
    """
    if kind == "tiny":
        path = _tiny(model, places.fixture_roots)
        return Checkpoint(kind, path, weights_digest(path))
    try:
        copy = _full(model, places)
        digest = weights_digest(copy.path)
    except OSError as error:
        raise CheckpointError(f"the weights of {model.model_id}: {error}") from error
    revision = next(iter(copy.revisions)) if len(copy.revisions) == 1 else None
    return Checkpoint(kind, copy.path, digest, revision)


def config_directory(model: ModelSpec, places: Places) -> Path | None:
    """A directory with a config.json of the model's architecture; None if none is here.

    It is that of the tiny checkpoint, or of a copy of the full one, complete or not.
    """
    if model.tiny is not None and (tiny := _tiny_directory(model.tiny, places.fixture_roots)):
        return tiny
    _, copies = _search(model, places)
    return next((one.path for one in copies if (one.path / "config.json").is_file()), None)


def _tiny(model: ModelSpec, fixture_roots: Sequence[Path]) -> Path:
    if model.tiny is None:
        raise CheckpointError(
            f"{model.model_id} names no tiny checkpoint; set ModelSpec(tiny=...) to a name under "
            "fixtures/tiny/ or to a path."
        )
    if found := _tiny_directory(model.tiny, fixture_roots):
        return found
    searched = ", ".join(str(root / "tiny") for root in fixture_roots)
    raise CheckpointError(
        f"there is no tiny checkpoint {model.tiny!r} in {searched}, nor a directory "
        f"{Path(model.tiny).resolve()} with a config.json; ModelSpec(tiny=...) is a name or a path."
    )


def _tiny_directory(tiny: str, fixture_roots: Sequence[Path]) -> Path | None:
    """The directory of a tiny checkpoint, from its name or its path."""
    for candidate in (Path(tiny), *(root / "tiny" / tiny for root in fixture_roots)):
        if (candidate / "config.json").is_file():
            return candidate.resolve()
    return None


def _full(model: ModelSpec, places: Places) -> Copy:
    """The first copy without a problem; copies of the pinned revision are tried first."""
    searched, copies = _search(model, places)
    rejected = []
    for copy in sorted(copies, key=lambda copy: model.revision not in copy.revisions):
        problem = _problem(copy, model, places.fixture_roots)
        if problem is None:
            return copy
        rejected.append(f"  {copy.path}: {problem}")
    download = _download(model, places)
    if rejected:
        unusable = [f"the weights of {model.model_id} on this machine cannot be used:", *rejected]
        raise CheckpointError("\n".join([*unusable, download]))
    absent = f"the weights of {model.model_id} are not in {searched}."
    raise CheckpointError("\n".join([absent, *_misplaced(model, places.weights_root), download]))


def _misplaced(model: ModelSpec, weights_root: Path | None) -> Iterable[str]:
    """The correction if `--vlm-weights-root` is the model's own directory, or its parent."""
    name = Path(model.model_id).name
    for directory in [weights_root, weights_root / name] if weights_root is not None else []:
        if (directory / "config.json").is_file():
            named = shlex.join(["--vlm-weights", f"{model.model_id}={directory.resolve()}"])
            yield f"But {directory.resolve()} has a config.json. If that is the model, type {named}"


def _search(model: ModelSpec, places: Places) -> tuple[str, list[Copy]]:
    """The places searched for full weights, as text, and the copies found there."""
    if (directory := places.own(model)) is not None:
        return str(directory), list(plain_copies(directory))
    caches = hub_caches()
    copies = [
        copy for cache in caches for copy in cache.find(cache.root, model.model_id, model.revision)
    ]
    return " or ".join(f"{cache.name} ({cache.root})" for cache in caches), copies


def _problem(copy: Copy, model: ModelSpec, fixture_roots: Sequence[Path]) -> str | None:
    """Reason why a copy cannot be used, or None."""
    pinned = model.revision
    if pinned is not None and copy.revisions - {pinned}:
        known = " and ".join(sorted(copy.revisions))
        return f"it has revision {known}, but the model is pinned to {pinned}"
    if not copy.unambiguous:
        return "one of several snapshots; choose one with ModelSpec(revision=...)"
    if gap := next(gaps(copy), None):
        return gap
    # A tiny checkpoint has the architecture of its model by definition.
    tiny = _tiny_directory(model.tiny, fixture_roots) if model.tiny else None
    return other_architecture(copy.path, tiny) if tiny else None


def _download(model: ModelSpec, places: Places) -> str:
    """The command that downloads the right checkpoint to the right place."""
    revision = ["--revision", model.revision] if model.revision else []
    hugging_face = ["hf", "download", model.model_id, *revision]
    modelscope = ["modelscope", "download", "--model", model.model_id, *revision]
    elsewhere = (
        f" Weights elsewhere: --vlm-weights {shlex.quote(f'{model.model_id}=DIR')}, or "
        f"--vlm-weights-root=DIR for DIR/{model.model_id}."
    )
    if (directory := places.own(model)) is not None:
        hugging_face += ["--local-dir", str(directory)]
        modelscope += ["--local_dir", str(directory)]
        elsewhere = ""
    if model.model_id in places.weights:
        elsewhere = " Or name another directory with --vlm-weights."
    commands = [modelscope] if prefers_modelscope() else [hugging_face, modelscope]
    return f"To download them: {', or: '.join(map(shlex.join, commands))}.{elsewhere}"
