"""Where the hubs' download tools leave a checkpoint, and which revision of it lies there.

Hugging Face: `models--org--name/snapshots/<commit>`, and the commit of a branch in `refs/<branch>`;
a directory written with `--local-dir` has a `.metadata` file for every other one, whose first line
is the commit.
ModelScope up to 1.37: a plain directory, a dot of the name written as `___`; later the layout of
Hugging Face with a branch, tag or commit as the snapshot's name. What ModelScope knows about
revisions beyond that is in pickles (`.msc`, `.mdl`), and a pickle runs code: they are not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")
# MODELSCOPE_CACHE stands for `~/.cache/modelscope` in some versions, for its `hub` in others.
_MODELSCOPE_LAYOUTS = ("models", "hub/models", "hub", "")


@dataclass(frozen=True)
class Copy:
    """A directory that holds, or should hold, a checkpoint.

    Attributes:
        path: the directory.
        downloads: the directory under which its unfinished downloads are.
        revisions: the commits its files are known to be of: none where nothing tells, several
            where a later download replaced some of them.
        alone: whether it is clear that this one is meant, and no other snapshot of the model.
    """

    path: Path
    downloads: Path
    revisions: frozenset[str]
    alone: bool = True


@dataclass(frozen=True)
class HubCache:
    """The cache of one hub's download tool.

    Attributes:
        name: how a reader is told.
        root: its directory.
        find: the copies of a model, given the root, the model's id and its pinned revision.
    """

    name: str
    root: Path
    find: Callable[[Path, str, str | None], Iterator[Copy]]


def prefers_modelscope() -> bool:
    """Whether vLLM is told to take models from ModelScope; read as vLLM reads it."""
    return os.environ.get("VLLM_USE_MODELSCOPE", "").strip().lower() in {"1", "true"}


def hub_caches() -> list[HubCache]:
    """Both hubs' caches, the one that vLLM would use first."""
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
    """The copy that a download into a directory of its own left, if it is there."""
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
        root / layout / organisation / written
        for layout in _MODELSCOPE_LAYOUTS
        for written in (name.replace(".", "___"), name)
    ]
    # `name` may be a link to `na___me`.
    for directory in dict.fromkeys(directory.resolve() for directory in directories):
        yield from plain_copies(directory)
    repository = root / "models" / model_id.replace("/", "--")
    yield from _snapshots(repository, *([revision] if revision else ["master", "main"]))


def _snapshots(repository: Path, *wanted: str) -> Iterator[Copy]:
    """The first wanted snapshot; where there is none of them, every other one."""
    present = sorted(path for path in (repository / "snapshots").glob("*") if path.is_dir())
    named = {path.name: path for path in present}
    chosen = [named[name] for name in wanted if name in named][:1] or present
    for path in chosen:
        revisions = frozenset(_COMMIT.findall(path.name))
        yield Copy(path.resolve(), repository, revisions, alone=len(chosen) == 1)


def _recorded_revisions(directory: Path) -> frozenset[str]:
    """The commits that the download tools noted in a plain directory, in text."""
    notes = [(directory / ".cache/huggingface/download").rglob("*.metadata"), directory.glob(".mv")]
    lines = [path.read_text("utf-8", "replace").partition("\n")[0] for n in notes for path in n]
    return frozenset(commit for line in lines for commit in _COMMIT.findall(line))
