"""Criteria lifecycle.*: a server that ends leaves no process and no device memory behind."""

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
    # Only this check: memory that is not freed is another defect.
    shows="checks failed: every process ended\n",
)


class LifecycleCriteria(Criteria):
    """Criteria of a server's orderly stop and of its crash."""

    @criterion("lifecycle.stop")
    def test_stop_leaves_nothing(self, server: Server, judge: Judge) -> None:
        """A server that is asked to stop ends all its processes and frees its device memory.

        Device memory may stay at most {memory_tolerance_mib} MiB above its level before the start.
        A process that survives keeps device memory, and the next server on that card runs out of
        memory.

        If this fails: the message names the processes that had to be killed. Find processes on a
        card with `npu-smi info` and end them. In a deployment let a supervisor end the process
        group.
        """
        if not server.can_restart:
            judge.cannot_run("the suite did not start this endpoint, so it cannot stop it")
        judge(rules.judge_shutdown(server.shutdown_report or server.restart()))

    @criterion("lifecycle.kill", known_failures=(_ORPHANED_ENGINE,), ends_server=True)
    def test_kill_leaves_nothing(self, server: Server, judge: Judge) -> None:
        """If the server's main process is killed, its other processes end and free device memory.

        The kernel kills the main process if the host runs out of memory. An engine process that
        survives it answers no requests and keeps device memory.

        If this fails: run the server in a container, or under a supervisor that ends the whole
        process group. End the named processes before you start anything else on the card.
        """
        if not server.can_restart:
            judge.cannot_run("the suite did not start this endpoint, so it cannot kill it")
        judge(rules.judge_shutdown(server.kill()))
