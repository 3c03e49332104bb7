"""pytest-xdist: one model, one worker, so that N models start N servers and never more.

A test class is the unit of distribution whatever `--dist` says, because a class-scoped server that
is needed by two workers is started twice. A project without model files keeps its own scheduling.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..platforms import select_platform
from ..suite.selection import is_named, model_of

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

_SUBCLASSED = b"VLMConformance"


def make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """A scheduler by class; None, for xdist's own, where no model file is among the arguments."""
    if not _has_model_files(config):
        return None
    from xdist.scheduler import LoadScopeScheduling

    # The workers have put the models that need most cards first; keep that order.
    config.option.loadscopereorder = False
    return LoadScopeScheduling(config, log)


def refuse_performance(config: pytest.Config) -> None:
    """Speed is measured by one process at a time.

    Raises:
        pytest.UsageError: `-n` is given together with `-m performance`.
    """
    if getattr(config.option, "dist", "no") != "no" and is_named("performance", config):
        raise pytest.UsageError(
            "performance criteria that run side by side measure each other; leave out -n"
        )


def auto_workers(config: pytest.Config) -> int | None:
    """What `-n auto` means: one worker for every usable card; None where that cannot be counted."""
    if not _has_model_files(config):
        return None
    cards = select_platform(config.getoption("vlm_platform")).usable_cards()
    return None if cards is None else max(cards, 1)


def most_cards_first(items: list[pytest.Item]) -> None:
    """Orders models so that the largest start first: the others fill the cards that are left."""
    items.sort(key=lambda item: -model.npus if (model := model_of(item)) else 0)


def _has_model_files(config: pytest.Config) -> bool:
    """Whether a test file mentions the suite; the controller of xdist collects nothing itself."""
    return any(_SUBCLASSED in path.read_bytes() for path in _test_files(config))


def _test_files(config: pytest.Config) -> Iterator[Path]:
    """The files that pytest would collect, without importing any."""
    for argument in config.args:
        path = config.invocation_params.dir / str(argument).partition("::")[0]
        if path.is_file():
            yield path
        for directory, subdirectories, names in os.walk(path):
            ignored = config.getini("norecursedirs")
            subdirectories[:] = [name for name in subdirectories if not _matches(name, ignored)]
            tests = (name for name in names if _matches(name, config.getini("python_files")))
            yield from (Path(directory, name) for name in tests)


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
