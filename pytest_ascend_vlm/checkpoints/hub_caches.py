"""Finds the checkpoints in the caches of the hubs' download tools, and their revisions.

Hugging Face: `models--org--name/snapshots/<commit>`; `refs/<branch>` contains the commit of a
branch. A directory written with `--local-dir` contains a `.metadata` file per file, whose first
line is the commit.

ModelScope up to 1.37: a plain directory, with `___` for each dot of the name. Later versions: the
layout of Hugging Face, with a branch, tag or commit as the snapshot's name. ModelScope stores more
about revisions in pickles (`.msc`, `.mdl`). They are not read, because loading a pickle runs code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")
# MODELSCOPE_CACHE means `~/.cache/modelscope` in some versions, and its `hub` in others.
_MODELSCOPE_LAYOUTS = ("models", "hub/models", "hub", "")


@dataclass(frozen=True)
class Copy:
    """A directory that contains a checkpoint, perhaps an incomplete one.

    Attributes:
        path: the directory.
        downloads: the directory that contains its unfinished downloads.
        revisions: the known commits of its files: none if nothing shows them, several if a later
            download replaced some files.
        unambiguous: True if no other snapshot of the model could be meant.
    """

    path: Path
    downloads: Path
    revisions: frozenset[str]
    unambiguous: bool = True


@dataclass(frozen=True)
class HubCache:
    """The cache of one hub's download tool.

    Attributes:
        name: its name in messages.
        root: its directory.
        find: returns the copies of a model from the root, the model's id and its pinned revision.
    """

    name: str
    root: Path
    find: Callable[[Path, str, str | None], Iterator[Copy]]


def prefers_modelscope() -> bool:
    """True if VLLM_USE_MODELSCOPE makes vLLM load models from ModelScope; parsed as in vLLM."""
    return os.environ.get("VLLM_USE_MODELSCOPE", "").strip().lower() in {"1", "true"}


def hub_caches() -> list[HubCache]:
    """The caches of both hubs; the one that vLLM would use comes first."""
    home = Path.home() / ".cache"
    hugging_face = _directory("HF_HOME", _directory("XDG_CACHE_HOME", home) / "huggingface")
    caches = [
        HubCache(
            "Hugging Face's cache",
            _directory("HF_HUB_CACHE", hugging_face / "hub"),
            _hugging_face_copies,
        ),
        HubCache(
            "ModelScope's cache",
            _directory("MODELSCOPE_CACHE", home / "modelscope"),
            _modelscope_copies,
        ),
    ]
    return caches[::-1] if prefers_modelscope() else caches


def plain_copies(directory: Path) -> Iterator[Copy]:
    """The copy in a plain directory, if the directory contains files."""
    if directory.is_dir() and any(directory.iterdir()):
        path = directory.resolve()
        yield Copy(path, path, _recorded_revisions(path))


def _directory(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def _hugging_face_copies(root: Path, model_id: str, revision: str | None) -> Iterator[Copy]:
    repository = root / f"models--{model_id.replace('/', '--')}"
    main = repository / "refs" / "main"
    if revision is None and main.is_file():
        revision = main.read_text("utf-8").strip()
    yield from _snapshots(repository, *([revision] if revision else []))


def _modelscope_copies(root: Path, model_id: str, revision: str | None) -> Iterator[Copy]:
    organisation, _, name = model_id.rpartition("/")
    directories = [
        root / layout / organisation / directory_name
        for layout in _MODELSCOPE_LAYOUTS
        for directory_name in (name.replace(".", "___"), name)
    ]
    # `name` may be a link to `na___me`.
    for directory in dict.fromkeys(directory.resolve() for directory in directories):
        yield from plain_copies(directory)
    repository = root / "models" / model_id.replace("/", "--")
    yield from _snapshots(repository, *([revision] if revision else ["master", "main"]))


def _snapshots(repository: Path, *wanted: str) -> Iterator[Copy]:
    """The first of the wanted snapshots that exists; all snapshots if none of them does."""
    present = sorted(path for path in (repository / "snapshots").glob("*") if path.is_dir())
    named = {path.name: path for path in present}
    chosen = [named[name] for name in wanted if name in named][:1] or present
    for path in chosen:
        revisions = frozenset(_COMMIT.findall(path.name))
        yield Copy(path.resolve(), repository, revisions, unambiguous=len(chosen) == 1)


def _recorded_revisions(directory: Path) -> frozenset[str]:
    """The commits that the download tools stored as text in a plain directory."""
    notes = [(directory / ".cache/huggingface/download").rglob("*.metadata"), directory.glob(".mv")]
    files = [path for note in notes for path in note if path.is_file()]
    lines = [path.read_text("utf-8", "replace").partition("\n")[0] for path in files]
    return frozenset(commit for line in lines for commit in _COMMIT.findall(line))
