"""What a served model does after a bad request, and when its engine stops or dies."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import psutil

from ..errors import PreconditionError, ServerError
from ..observation.answers import Refusal
from ..observation.recovery import EngineLoss, Recovery, Stall, StreamEnd
from ..spec.thresholds import HELD_SECONDS, LOSS_SECONDS, STALL_SECONDS
from .bad_requests import ANSWER_SECONDS, BadRequest, ImageRequests

if TYPE_CHECKING:
    from ..engines.endpoint import Server
    from .answers import Answers

_POLL_SECONDS = 0.5
_HEALTH_SECONDS = 5.0


@dataclass(frozen=True)
class RecoveryRuns:
    """Bad requests to a served model, and an engine that stops or dies.

    Attributes:
        server: the model's server.
        answers: the answers to each case.
        requests: makes the requests.
    """

    server: Server
    answers: Answers
    requests: ImageRequests

    def after(self, send: BadRequest) -> Recovery:
        """Sends a bad request, and good ones after it.

        The first good one has the image of the bad one, so that what is left of it in the caches
        is used. The image of the second is in no cache. If the server does not come back, a new
        one starts for the next test.

        Raises:
            PreconditionError: the bad request cannot be made for this server.
            ServerError: the server does not answer a good request beforehand.
            UnreachableError: the server cannot fetch the image of the bad request.
        """
        self.server.ensure_running()
        before, held = self.answers(self.requests.image_case), self._held()
        request = self.requests.new()
        incident = send(self.requests, request)
        again, cold = self.requests.ask(request), self.requests.ask(self.requests.new())
        seen = Recovery(incident, before, again, cold, self._left(held))
        if seen.held or isinstance(cold, Refusal):
            self._discard_server()
        return seen

    def stalled(self) -> Stall:
        """Stops the engine, asks for the server's health, and lets the engine go on.

        Raises:
            PreconditionError: the engine has no process of its own.
            ServerError: the server does not answer a good request beforehand.
        """
        before, engine = self.answers(self.requests.image_case), self._engine()
        with ThreadPoolExecutor(1) as pool:
            with _stopped(engine):
                since = time.monotonic()
                waiting = pool.submit(self.requests.ask, self.requests.new())
                health = self._health_within(STALL_SECONDS)
                seconds = time.monotonic() - since
            seen = Stall(health, seconds, before, waiting.result())
        if isinstance(seen.waited, Refusal):
            self._discard_server()
        return seen

    def lost(self) -> EngineLoss:
        """Kills the engine while it computes an answer.

        Raises:
            PreconditionError: the engine has no process of its own.
            ServerError: the server does not begin the answer.
        """
        engine, is_begun = self._engine(), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self._read_endless_answer, is_begun)
            is_begun.wait(ANSWER_SECONDS)
            if answer.done():
                answer.result()  # raises
            for process in engine:
                process.kill()
            health = self._health_within(LOSS_SECONDS)
            has_ended = answer in wait([answer], LOSS_SECONDS).done
            report = self.server.await_end(LOSS_SECONDS)
            if report is None:
                self._discard_server()
        return EngineLoss(answer.result() if has_ended else None, health, report)

    def _read_endless_answer(self, is_begun: threading.Event) -> StreamEnd:
        """Reads an answer that does not end by itself."""
        try:
            with self.requests.open(self.requests.new()) as chunks:
                for _ in chunks:
                    is_begun.set()
        except ServerError as error:
            if not is_begun.is_set():
                raise
            return StreamEnd(str(error))
        finally:
            is_begun.set()
        return StreamEnd(None)

    def _engine(self) -> list[psutil.Process]:
        """The engine's processes, after a start of the server if it does not run.

        Raises:
            PreconditionError: it has none of its own.
        """
        self.server.ensure_running()
        if engine := self.server.engine_processes():
            return engine
        raise PreconditionError(
            "the API server has no process for its engine, so the engine cannot be stopped alone."
        )

    def _health_within(self, seconds: float) -> int | None:
        """The first status of `/health` that is not 200; 200 if there is none in time."""
        from ..engines.health import health

        deadline = time.monotonic() + seconds
        while (status := health(self.server.endpoint, _HEALTH_SECONDS)) == HTTPStatus.OK:
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        return status

    def _held(self) -> float | None:
        from ..engines.vllm.metrics import requests_held

        return requests_held(self.server.endpoint)

    def _left(self, before: float | None) -> float | None:
        """The number of requests that the server has beyond those before.

        It is None if the server does not tell it, and infinite if it no longer does.
        """
        if before is None:
            return None
        deadline = time.monotonic() + HELD_SECONDS
        while True:
            now = self._held()
            left = math.inf if now is None else max(now - before, 0.0)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(_POLL_SECONDS)

    def _discard_server(self) -> None:
        """Stops a server that did not come back; the next request starts a new one."""
        self.server.stop()
        self.server.shutdown_report = None  # it is not the report of a normal stop


@contextlib.contextmanager
def _stopped(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Stops processes for the duration of the context."""
    try:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
