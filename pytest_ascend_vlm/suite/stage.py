"""The place of one model's servers and engines, which hold it one at a time: no card holds two."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import VlmError
from ..spec import Case, ModelSpec, Variant
from .run import Run

if TYPE_CHECKING:
    from ..engines.client import Client
    from ..engines.endpoint import Server
    from ..engines.offline import OfflineResult
    from ..observation import Completion, Forced
    from ..platforms.base import Place

_T = TypeVar("_T")


class Once(Generic[_T]):
    """Something slow that several criteria look at: done once, and a failure is kept too."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._outcome: _T | None = None
        self._error: VlmError | None = None

    def __call__(self) -> _T:
        """What the work gave.

        Raises:
            VlmError: it failed, now or before.
        """
        if self._error is not None:
            raise self._error
        if self._outcome is None:
            try:
                self._outcome = self._work()
            except VlmError as error:
                self._error = error
                raise
        return self._outcome


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

    def offline(self, requests: Sequence[tuple[Case, str]]) -> OfflineResult:
        """What the offline engines make of requests and their forced answers."""
        self.vacate()
        return self.run.offline(self.model, self.label, self.place, requests)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen of one way of serving a model, by case id."""

    answers: Mapping[str, Completion]
    forced: Mapping[str, Forced]
