"""The workers of xdist: what the process that prints tells them, and what they find out for it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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


def told(node: WorkerController) -> list[str]:
    """What a worker that has ended told; nothing of one that was killed."""
    lines: list[str] = getattr(node, "workeroutput", {}).get(_TOLD, [])
    return lines


def deselected(node: WorkerController) -> set[tuple[str, str]]:
    """The criteria that a worker that has ended did not ask with all of their cases."""
    pairs = getattr(node, "workeroutput", {}).get(_DESELECTED, [])
    return {(name, criterion) for name, criterion in pairs}


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
            self._tell([str(error), *self._hints()])
            items.clear()
            return None

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Hands on which criteria are not asked with all of their cases."""
        from .criterion_call import call_of

        pairs = {pair for item in items if (pair := call_of(item).pair) is not None}
        known = self._config.workeroutput.setdefault(_DESELECTED, [])  # type: ignore[attr-defined]
        known += sorted(map(list, pairs))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Hands on why nothing was selected."""
        if not session.items:
            self._tell(self._hints())

    def _hints(self) -> list[str]:
        from . import hints

        return hints.of_run(self._config)

    def _tell(self, lines: list[str]) -> None:
        """Tells the process that prints, unless this worker has told it something already."""
        self._config.workeroutput.setdefault(_TOLD, lines)  # type: ignore[attr-defined]
