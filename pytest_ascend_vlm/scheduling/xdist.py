"""pytest-xdist: one model, one worker, so that N models start N servers and never more.

A test class is the unit of distribution whatever `--dist` says, because a class-scoped server that
is needed by two workers is started twice. A project without model files keeps its own scheduling.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from ..integration import hints
from ..integration.selection import is_named, model_of, pair_of
from ..model_files import model_files
from ..platforms import select_platform

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

_RUN_NAME = "vlm_run_name"
_TOLD = "vlm_told"
_DESELECTED = "vlm_deselected"


def is_worker(config: pytest.Config) -> bool:
    """Whether this process tests for another one, which prints."""
    return hasattr(config, "workerinput")


def run_name(config: pytest.Config) -> str | None:
    """The name of the run that a worker is part of; None in a process that begins one."""
    return config.workerinput[_RUN_NAME] if is_worker(config) else None  # type: ignore[attr-defined]


def tell_run_name(node: WorkerController, name: str) -> None:
    """Tells a worker, before it starts, which run it is part of."""
    node.workerinput[_RUN_NAME] = name


def tell(config: pytest.Config, lines: list[str]) -> None:
    """Tells the process that prints, unless this worker has told it something already."""
    config.workeroutput.setdefault(_TOLD, lines)  # type: ignore[attr-defined]


def told(node: WorkerController) -> list[str]:
    """What a worker that has ended told; nothing of one that was killed."""
    lines: list[str] = getattr(node, "workeroutput", {}).get(_TOLD, [])
    return lines


def deselected(node: WorkerController) -> set[tuple[str, str]]:
    """The criteria that a worker that has ended did not ask with all of their cases."""
    pairs = getattr(node, "workeroutput", {}).get(_DESELECTED, [])
    return {(name, criterion) for name, criterion in pairs}


def make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """A scheduler by class; None, for xdist's own, where no model file is among the arguments."""
    if not any(model_files(config)):
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
    if not any(model_files(config)):
        return None
    cards = select_platform(config.getoption("vlm_platform")).usable_cards()
    return None if cards is None else max(cards, 1)


def most_cards_first(items: list[pytest.Item]) -> None:
    """Orders models so that the largest start first: the others fill the cards that are left."""
    items.sort(key=lambda item: -model.npus if (model := model_of(item)) else 0)


class Worker:
    """What a worker of xdist finds out and another process prints."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Hands a usage error on: what a worker raises, xdist shows as a failure of its own."""
        try:
            return (yield)
        except pytest.UsageError as error:
            tell(self._config, [str(error), *hints.of_run(self._config)])
            items.clear()
            return None

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Hands on which criteria are not asked with all of their cases."""
        pairs = {pair for item in items if (pair := pair_of(item)) is not None}
        known = self._config.workeroutput.setdefault(_DESELECTED, [])  # type: ignore[attr-defined]
        known += sorted(map(list, pairs))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Hands on why nothing was selected."""
        if not session.items:
            tell(self._config, hints.of_run(self._config))
