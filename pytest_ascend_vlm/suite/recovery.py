"""Criteria recovery.*: a server goes on after a bad request, and tells of a dead engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..criteria import recovery as rules
from ..session.bad_requests import BAD_REQUESTS, URLS
from ..session.goldens import Goldens
from ..session.image_urls import UnreachableError, excluded
from ..session.judge import Judge
from ..session.recovery import RecoveryRuns
from ..spec.case import Capability, Case
from ..spec.model import ExpectedFailure
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..engines.endpoint import Server

# The first three have no range of releases in which they must occur: a deployment can avoid them
# with mm_processor_cache_gb=0 and VLLM_MEDIA_FETCH_MAX_RETRIES=1.
_HALF_CACHED = ExpectedFailure(
    criterion="recovery.request[too_long]",
    reason="vLLM up to 0.32 notes the image of a request that it refuses as known to the engine, "
    "which has not got it",
    issue="https://github.com/vllm-project/vllm/issues/46354",
    # Only this check: any other image has to be answered.
    shows="checks failed: the same image is answered\n",
)
_HALF_CACHED_HANGS = ExpectedFailure(
    criterion="recovery.request[too_long]",
    reason="vLLM before 0.18 then answers nothing any more: the thread of the engine that takes "
    "requests has ended",
    issue="https://github.com/vllm-project/vllm/issues/31404",
    shows="checks failed: the same image is answered, an image in no cache is answered\n",
    fixed_in="0.18",
)
_RETRIES = ExpectedFailure(
    criterion="recovery.request[url_hangs]",
    reason="vLLM 0.23 to 0.32 waits for an image three times, for 5, 20 and 80 s",
    issue="https://github.com/vllm-project/vllm/pull/37218",
    # Only this check: others have to be answered meanwhile, and right answers to follow.
    shows="checks failed: the bad request is refused\n",
)
_BLIND_HEALTH = ExpectedFailure(
    criterion="recovery.stopped_engine",
    reason="/health of vLLM up to 0.32 tells of an engine that died, but not of one that hangs",
    issue="https://github.com/vllm-project/vllm/issues/39863",
    shows="checks failed: /health tells it\n",
    seen_in=">=0.11,<0.33",
)
_SUCCESS = ExpectedFailure(
    criterion="recovery.killed_engine",
    reason="vLLM up to 0.32 ends with exit code 0 if its engine dies while it serves",
    issue="https://github.com/vllm-project/vllm/issues/48966",
    shows="checks failed: exit code\n",
    seen_in=">=0.11,<0.33",
)
_ORPHANED_WORKER = ExpectedFailure(
    criterion="recovery.killed_engine",
    reason="now and then a worker of vLLM 0.23 to 0.32 survives its engine as well",
    issue="https://github.com/vllm-project/vllm/pull/34816",
    shows="checks failed: exit code, every process ended\n",
)


class RecoveryCriteria(Criteria):
    """Criteria of what follows a bad request, and the stop or the death of the engine."""

    @criterion(
        "recovery.request",
        needs=Capability.IMAGE,
        known_failures=(_HALF_CACHED, _HALF_CACHED_HANGS, _RETRIES),
    )
    @pytest.mark.parametrize("event", BAD_REQUESTS)
    def test_server_recovers(
        self,
        event: str,
        image_case: Case,
        recovery_runs: RecoveryRuns,
        golden: Goldens,
        judge: Judge,
    ) -> None:
        """After a bad request, an image gets the answer that it got before.

        Rows: `too_long`: a text that leaves no room for its image. `leaves`: a client that leaves
        after the first token. `leaves_early`: a client that leaves before its answer, which is
        not streamed, comes. `twenty_leave`: {leaving} clients that leave at one moment.
        `url_refuses`, `url_hangs`, `url_missing`: the URL of an image refuses the connection, does
        not reply, or replies 404. `corrupt_file`: half of a clip, or half of an image if the model
        takes no clips. Two good requests follow. The first has the image of the bad one, and may
        use what that left in the caches; the second is cold. The first {beginning_tokens} tokens of
        both are those of the answer before. Where two tokens are equally likely, either is right.

        A bad request is refused within {url_seconds:g} s. While a URL hangs, a text is answered.
        The requests of clients that left are off the server after {held_seconds:g} s, if it counts
        its requests in `/metrics`. Other clients must not use the server meanwhile.

        If this fails: `the same image`: look at what an aborted or refused request leaves in the
        prefix cache, the encoder cache and the processor's cache (mm_processor_cache_gb=0 to
        confirm). `an image in no cache`: look at the state of the batch after an abort. `no request
        is left`: look for a proxy that keeps its connection to the server after a client left.
        `url_hangs`: set VLLM_IMAGE_FETCH_TIMEOUT and VLLM_MEDIA_FETCH_MAX_RETRIES. If others wait,
        the server fetches images in its event loop.
        """
        if event in URLS and (reason := excluded(self.model)):
            judge.not_applicable(reason)
        try:
            seen = recovery_runs.after(BAD_REQUESTS[event])
        except UnreachableError as error:
            judge.cannot_run(str(error))
        judge(rules.judge_recovery(seen, golden(image_case)))

    @criterion("recovery.stopped_engine", needs=Capability.IMAGE, known_failures=(_BLIND_HEALTH,))
    def test_stopped_engine_shows(
        self,
        server: Server,
        image_case: Case,
        recovery_runs: RecoveryRuns,
        golden: Goldens,
        judge: Judge,
    ) -> None:
        """`/health` tells of an engine that does nothing, and the engine can go on.

        The suite stops the engine's process (SIGSTOP), so that it hangs, as in a collective
        operation that never returns. Within {stall_seconds:g} s `/health` must return another
        status than 200, or nothing. Otherwise a load balancer keeps sending requests that nobody
        answers. Then the process goes on (SIGCONT). The image that was sent meanwhile gets the
        answer that it got before.

        If this fails: `/health` says only that the engine's process exists. Until the engine has a
        health check of its own, let the liveness probe send a request with max_tokens=1.
        """
        if not server.can_restart:
            judge.cannot_run("the suite did not start this endpoint, so it cannot stop its engine")
        judge(rules.judge_stall(recovery_runs.stalled(), golden(image_case)))

    @criterion(
        "recovery.killed_engine",
        needs=Capability.IMAGE,
        known_failures=(_SUCCESS, _ORPHANED_WORKER),
        ends_server=True,
    )
    def test_killed_engine_shows(
        self, server: Server, recovery_runs: RecoveryRuns, judge: Judge
    ) -> None:
        """If the engine's process is killed, clients and supervisors of the server learn of it.

        Within {loss_seconds:g} s, the answer that the engine was computing ends with an error, and
        `/health` returns another status than 200, or nothing. If the server ends, its exit code is
        not 0, no process is left, and device memory is freed. lifecycle.kill kills the API server
        instead.

        If this fails: an exit code of 0 keeps `on-failure`, of systemd or Docker, from restarting
        the server: use `always`. If a client waits for ever, set a timeout in the client.
        """
        if not server.can_restart:
            judge.cannot_run("the suite did not start this endpoint, so it cannot kill its engine")
        judge(rules.judge_loss(recovery_runs.lost()))
