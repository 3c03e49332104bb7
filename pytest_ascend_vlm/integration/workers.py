"""Messages between workers and their controller, the process that prints.

Workers are those of xdist, and the test processes of a cluster's hosts (scheduling/child.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from ..reporting.resume import Earlier
    from .activity import EventCallback
    from .takeover import Takeover

_RUN_NAME = "vlm_run_name"
_MESSAGES = "vlm_messages"
_DESELECTED = "vlm_deselected"
_EVENTS = "vlm_events"
_EARLIER = "vlm_earlier"

_INPUT = pytest.StashKey[dict[str, Any]]()
_OUTPUT = pytest.StashKey[dict[str, Any]]()
"""What xdist keeps in `workerinput` and `workeroutput`, of a worker that xdist did not start.

Other plugins would take these attributes for a connection to a controller of xdist.
"""


def is_worker(config: pytest.Config) -> bool:
    """True if this process is a worker."""
    return _input(config) is not None


def run_name(config: pytest.Config) -> str | None:
    """The name of the run that a worker is part of; None in a process that starts a run."""
    return (_input(config) or {}).get(_RUN_NAME)


def become_worker(config: pytest.Config, run: str, channel: Any, earlier: str | None) -> None:
    """Makes this process a worker without xdist.

    Args:
        config: the configuration of this process.
        run: the name of the run that it is part of.
        channel: its `send` takes the events.
        earlier: the verdicts that its tests may take over, as a text; None if there are none.
    """
    config.stash[_INPUT] = {_RUN_NAME: run, _EVENTS: channel, _EARLIER: earlier}
    config.stash[_OUTPUT] = {}


def own_messages(config: pytest.Config) -> list[str]:
    """The messages of this worker."""
    lines: list[str] = _output(config).get(_MESSAGES, [])
    return lines


def send_run_name(node: WorkerController, name: str) -> None:
    """Sends a worker the name of its run, before the worker starts."""
    node.workerinput[_RUN_NAME] = name


def listen(node: WorkerController, callback: EventCallback) -> None:
    """Gives a worker a channel for its events, before the worker starts.

    Args:
        node: the worker.
        callback: called with each event, in a thread of its own.
    """
    channel = node.gateway.newchannel()
    channel.setcallback(lambda event: callback({**event, "worker": node.gateway.id}))
    node.workerinput[_EVENTS] = channel


def send_earlier(node: WorkerController, earlier: Earlier) -> None:
    """Sends a worker the verdicts that its tests may take over, before the worker starts."""
    node.workerinput[_EARLIER] = earlier.as_text()


def messages(node: WorkerController) -> list[str]:
    """The messages of a worker that has ended; empty if the worker was killed."""
    lines: list[str] = getattr(node, "workeroutput", {}).get(_MESSAGES, [])
    return lines


def deselected(node: WorkerController) -> set[tuple[str, str]]:
    """The criteria of which a worker that has ended deselected at least one case."""
    pairs = getattr(node, "workeroutput", {}).get(_DESELECTED, [])
    return {(name, criterion) for name, criterion in pairs}


class Worker:
    """Collects what the controller has to print for a worker."""

    def __init__(self, config: pytest.Config, takeover: Takeover) -> None:
        self._config = config
        takeover.is_on_cluster = _INPUT in config.stash
        if told := (_input(config) or {}).get(_EARLIER):
            from ..reporting.resume import Earlier

            takeover.earlier = Earlier.from_text(told)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Sends a usage error to the controller; xdist would show it as an internal error."""
        try:
            return (yield)
        except pytest.UsageError as error:
            self._send([str(error), *self._hints()])
            items.clear()
            return None

    def take_event(self, event: Mapping[str, Any]) -> None:
        """Sends an event to the controller; a controller that is gone ends this worker itself."""
        with contextlib.suppress(OSError):
            (_input(self._config) or {})[_EVENTS].send(dict(event))

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Sends the criteria with at least one deselected case."""
        from .criterion_call import pairs_of

        known = _output(self._config).setdefault(_DESELECTED, [])
        known += sorted(map(list, pairs_of(items)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Sends hints if no test was selected."""
        if not session.items:
            self._send(self._hints())

    def _hints(self) -> list[str]:
        from . import hints

        return hints.of_run(self._config)

    def _send(self, lines: list[str]) -> None:
        """Sends messages to the controller; only the first call of a worker counts."""
        _output(self._config).setdefault(_MESSAGES, lines)


def _input(config: pytest.Config) -> dict[str, Any] | None:
    found: dict[str, Any] | None = getattr(config, "workerinput", config.stash.get(_INPUT, None))
    return found


def _output(config: pytest.Config) -> dict[str, Any]:
    if _OUTPUT in config.stash:
        return config.stash[_OUTPUT]
    found: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]
    return found
