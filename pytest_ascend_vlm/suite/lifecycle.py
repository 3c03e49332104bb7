"""lifecycle.*: what does a server leave behind when it ends?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..criteria import lifecycle as rules
from ..session.judge import Judge
from ..spec.model import ExpectedFailure
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..engines.endpoint import Server

_ORPHANED_ENGINE = ExpectedFailure(
    criterion="lifecycle.kill",
    reason="vLLM up to 0.32 leaves its engine process behind when the API server is killed",
    issue="vllm-ascend#9888",
    # This check alone: memory that does not come back either is another defect.
    shows="do not hold: every process ended\n",
)


class LifecycleCriteria(Criteria):
    """Criteria of a server's end; each docstring is the criterion's documentation."""

    @criterion("lifecycle.stop")
    def test_stop_leaves_nothing(self, server: Server, judge: Judge) -> None:
        """A server told to stop ends by itself, with every process, and frees its cards' memory.

        What stays behind holds a card: the next deployment on it runs out of memory.

        If this fails: the message names the processes that had to be killed. On a card find them
        with `npu-smi info` and end them; in deployments let a supervisor end the process group.
        """
        if not server.can_restart:
            judge.cannot_run("an endpoint that someone else runs cannot be stopped")
        judge(rules.judge_shutdown(server.shutdown_report or server.restart()))

    @criterion("lifecycle.kill", known_failures=(_ORPHANED_ENGINE,), ends_server=True)
    def test_kill_leaves_nothing(self, server: Server, judge: Judge) -> None:
        """When the server's leading process is killed, the others end too and free their memory.

        The kernel kills it when the host's memory runs out. An engine process that goes on without
        it answers nobody and holds the card.

        If this fails: run the server in a container or under a supervisor that ends the whole
        group; look for the named processes before anything else is started on the card.
        """
        if not server.can_restart:
            judge.cannot_run("an endpoint that someone else runs cannot be killed")
        judge(rules.judge_shutdown(server.kill()))
