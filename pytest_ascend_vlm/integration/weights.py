"""Reads `--vlm-weights ID=DIR` and its ini key, and checks the ids against the collected models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from ..errors import ConfigurationError
from ..spec.model import ModelSpec
from .criterion_call import call_of

OPTION = "--vlm-weights"
INI_KEY = "vlm_weights"


def read(config: pytest.Config) -> Mapping[str, Path]:
    """Model's id -> directory of its full checkpoint; the command line wins over the ini file.

    Raises:
        ConfigurationError: an entry is not ID=DIR, names no directory, or contradicts another; or
            the run uses tiny checkpoints.
    """
    typed: Sequence[str] = config.getoption("vlm_weights")
    if config.getoption("vlm_checkpoint") == "tiny":
        if typed:
            raise ConfigurationError(
                f"{OPTION} names full checkpoints, but --vlm-checkpoint=tiny uses none; remove one "
                "of them"
            )
        return {}
    lines: Sequence[str] = config.getini(INI_KEY)
    return {
        # The ini file may be that of several hosts; a model says what is missing on this one.
        **parsed(INI_KEY, lines, config.rootpath, must_exist=False),
        **parsed(OPTION, typed, config.invocation_params.dir),
    }


def require_known(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Requires that every id on the command line is that of a collected model or variant.

    The ini file may name models that this run does not collect.

    Raises:
        pytest.UsageError: an id is unknown; the message lists the known ones.
    """
    typed = [entry.partition("=")[0].strip() for entry in config.getoption("vlm_weights")]
    if not typed:
        return
    models = (model for item in items if (model := call_of(item).model) is not None)
    known = sorted({name for model in models for name in _ids(model)})
    for name in typed:
        if name not in known:
            there = ", ".join(known) or "none"
            raise pytest.UsageError(
                f"{OPTION} {name}=...: no collected model has this id; the ids are: {there}"
            )


def _ids(model: ModelSpec) -> Iterator[str]:
    """The ids under which the weights of a model and of its variants are found."""
    yield model.model_id
    yield from (variant.checkpoint for variant in model.variants if variant.checkpoint)


def parsed(
    source: str, entries: Iterable[str], base: Path, *, must_exist: bool = True
) -> dict[str, Path]:
    """Model's id -> directory, from entries ID=DIR.

    Args:
        source: the option or ini key that has the entries.
        entries: the entries.
        base: the directory that relative ones start at.
        must_exist: True if a directory that this host does not have is an error.

    Raises:
        ConfigurationError: an entry is not ID=DIR, names no directory, or contradicts another.
    """
    found: dict[str, Path] = {}
    for entry in entries:
        name, separator, directory = (part.strip() for part in entry.partition("="))
        if not (name and separator and directory):
            raise ConfigurationError(f"{source} {entry}: type ID=DIR, the model's id on the hub")
        # Paths are compared without resolving links: the log shows what the user typed.
        try:
            path = Path(os.path.normpath(base / Path(directory).expanduser()))
            is_known = not must_exist or path.is_dir()
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(f"{source} {entry}: {error}") from error
        if not is_known:
            raise ConfigurationError(f"{source} {entry}: there is no directory {path}")
        if found.setdefault(name, path) != path:
            raise ConfigurationError(
                f"{source} names two directories for {name}: {found[name]} and {path}; remove one"
            )
    return found
