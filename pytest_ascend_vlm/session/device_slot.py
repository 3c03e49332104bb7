"""The place of one model's servers and engines, which hold it one at a time: no card holds two."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

import pytest

from ..spec.model import Case, ModelSpec, Variant
from .run import Run

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..engines.vllm.offline import OfflineResult
    from ..observation.answers import Completion, Forced
    from ..platforms.base import Place

_T = TypeVar("_T")


class Once(Generic[_T]):
    """Something slow that several criteria look at: done once, whatever it gives or raises."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._outcome: Future[_T] = Future()

    def __call__(self) -> _T:
        """What the work gave.

        Raises:
            Exception: what it raised, now or before.
        """
        if not self._outcome.done():
            try:
                self._outcome.set_result(self._work())
            except pytest.exit.Exception:  # the run ends; this is not what the work gave
                raise
            except Exception as error:
                self._outcome.set_exception(error)
        return self._outcome.result()


@dataclasses.dataclass
class Stage:
    """Where one model's servers and engines run.

    Attributes:
        run: the run.
        model: the model.
        label: name of their logs.
        place: the place.
        server: the model's own server, once it was asked for.
    """

    run: Run
    model: ModelSpec
    label: str
    place: Place
    server: Server | None = None

    @property
    def is_ours(self) -> bool:
        """Whether servers and engines may be started here."""
        return self.run.options.server_url is None

    def vacate(self) -> None:
        """Stops the model's own server; the next test that needs it starts it again."""
        if self.server is not None:
            self.server.stop()

    @contextlib.contextmanager
    def variant(self, variant: Variant) -> Iterator[Client]:
        """A server of a variant, while the model's own is stopped."""
        from ..engines.client import Client

        self.vacate()
        model = self.model.as_variant(variant)
        server = self.run.server(model, f"{self.label}-{variant.name}", self.place)
        try:
            server.start()
            with contextlib.closing(Client(server.endpoint, server.explain_loss)) as client:
                yield client
                self.run.note_other(self.model, variant.name, server, client.requests)
        finally:
            server.stop()

    def offline(
        self, log: str, tasks: Collection[str], requests: Sequence[tuple[Case, str]]
    ) -> OfflineResult:
        """What the offline engines make of requests and their forced answers.

        Args:
            log: name of their log, behind that of the model.
            tasks: what they are asked to do.
            requests: each with the answer that is forced.
        """
        self.vacate()
        return self.run.offline(self.model, f"{self.label}-{log}", self.place, tasks, requests)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of one way of serving a model, by case id."""

    answers: Mapping[str, Completion]
    forced: Mapping[str, Forced]
