"""Requests of all kinds, sent to a served model, with a look at the server after them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, ServerError
from ..observation.answers import reply_or_refusal
from ..observation.exchange import Exchange, SequenceRun, SequenceSearch
from ..spec.case import Case, Sampling
from ..spec.step import Step
from ..spec.thresholds import BEGINNING_TOKENS

if TYPE_CHECKING:
    from ..criteria.requests import Shortest
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from .goldens import Goldens
    from .run_logs import RunLogs

_CANARY = Sampling(max_tokens=BEGINNING_TOKENS)


@dataclass(frozen=True)
class RequestRuns:
    """Sends sequences of requests; after each, asks the canary and `/health`.

    The canary is a good request with an image, which the server has to compute again each time.

    Attributes:
        client: the client of the served model.
        server: its server.
        case: the canary.
        golden: the references.
        seconds: maximum time for one reply.
    """

    client: Client
    server: Server
    case: Case
    golden: Goldens
    seconds: float

    @cached_property
    def before(self) -> SequenceRun:
        """The state of the server before all requests."""
        return self.run(())

    def exchanges(self, steps: Sequence[Step]) -> tuple[Exchange, ...]:
        """Sends a sequence over new connections, up to its first wrong reply."""
        from ..criteria.requests import reply_problem

        found: list[Exchange] = []
        with self.client.disposable(timeout_seconds=self.seconds) as other:
            for step in steps:
                found.append(other.exchange(step, self.words))
                if reply_problem(found[-1]) is not None:
                    break
        return tuple(found)

    def run(self, steps: Sequence[Step]) -> SequenceRun:
        """Sends a sequence up to its first wrong reply, then the canary."""
        from ..engines.health import health

        exchanges = self.exchanges(steps)
        with self.client.disposable(timeout_seconds=self.seconds) as other:
            canary = reply_or_refusal(lambda: other.ask(self.case, _CANARY, cold=True))
        return SequenceRun(exchanges, canary, health(self.client.endpoint, self.seconds) or 0)

    def harm(self, run: SequenceRun) -> str | None:
        """The problem of a sequence, or None."""
        from ..criteria.requests import harm

        return harm(run, self.before, lambda _: self.golden(self.case))

    def is_sound(self) -> bool:
        """True if the server answers as before all requests."""
        return self.harm(self.run(())) is None

    def restart(self) -> bool:
        """Restarts the server, which may be dead; returns True if it is sound then."""
        if not self.server.can_restart:
            return False
        try:
            self._restart()
        except ServerError:
            return False
        return self.is_sound()

    def _restart(self) -> None:
        try:
            self.server.restart()
        except ServerError:  # it is dead
            self.server.recover()

    @cached_property
    def words(self) -> dict[str, str]:
        """The words of the steps' templates and what they stand for."""
        page = self.case.images[0].read_bytes()
        return {
            "<model>": json.dumps(self.client.endpoint.served_name)[1:-1],
            "<page>": _url(page),
            "<half-page>": _url(page[: len(page) // 2]),
        }

    def script(self, steps: Sequence[Step]) -> str:
        """A program that sends a sequence again, and the canary before and after it."""
        from ..engines import exchange

        endpoint = self.client.endpoint
        sent = (self._canary_step(), *steps)
        bodies = "".join(step.body for step in sent)
        data = {
            "url": endpoint.url,
            "trust_env": not endpoint.is_local,
            "seconds": self.seconds,
            "words": {word: meaning for word, meaning in self.words.items() if word in bodies},
            "steps": [_fields(step) for step in sent],
        }
        return exchange.script(data)

    def shortest(self, found: SequenceSearch, logs: RunLogs) -> Shortest | None:
        """The shortest sequence that did harm, with a script that is kept in the run's logs."""
        from ..criteria.requests import Shortest

        run = found.shortest
        if run is None:
            return None
        script = self.script(run.steps)
        path = f"requests-{hashlib.sha256(script.encode()).hexdigest()[:8]}.py"
        try:
            path = str(logs.directory / path)
            Path(path).write_text(script, "utf-8")
        except (ConfigurationError, OSError) as error:
            path = f"only in report.json, because it could not be kept: {error}"
        return Shortest(run.steps, str(self.harm(run)), script, path)

    def _canary_step(self) -> Step:
        from ..engines.messages import messages

        def cold(part: Mapping[str, Any]) -> dict[str, Any]:
            return {**part, "image_url": {"url": "<page>"}, "uuid": "<salt>"}

        body = {
            "model": "<model>",
            "messages": messages(self.case, cold),
            "max_tokens": _CANARY.max_tokens,
            "temperature": _CANARY.temperature,
            "cache_salt": "<salt>",
            "return_token_ids": True,
        }
        return Step("canary", json.dumps(body))


def _url(file: bytes) -> str:
    """The data URL of an image."""
    from ..engines.messages import image_part

    return str(image_part(file, "image/png")["image_url"]["url"])


def _fields(step: Step) -> dict[str, Any]:
    """The fields that make a request, as JSON values."""
    compared = (field.name for field in dataclasses.fields(step) if field.compare)
    return {name: getattr(step, name) for name in compared}
