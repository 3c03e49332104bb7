"""A host's cards of one kind: which are visible, which can be used, and a place on some of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..progress import ProgressCallback
from .base import Allocation
from .cards import Card
from .preflight import Obstacle, obstacles, visible_cards


@dataclass(frozen=True)
class Pool:
    """The cards of this host.

    Attributes:
        kind: what they are, "npu".
        variable: the environment variable that says which are visible.
        ascending: whether it has to name them in ascending order.
        read: asks the driver's tool; raises ConfigurationError where it has no answer.
    """

    kind: str
    variable: str
    ascending: bool
    read: Callable[[], tuple[Card, ...]]

    def visible(self, cards: Collection[Card]) -> tuple[int, ...]:
        """Ids of the cards that the caller's environment leaves visible.

        Raises:
            ConfigurationError: it names cards that are not there, or not so that it is understood.
        """
        value = os.environ.get(self.variable)
        return visible_cards(self.variable, value, len(cards), self.ascending)

    def visible_problem(self) -> str | None:
        """What is wrong with the variable of visible cards, or None."""
        try:
            self.visible(self.read())
        except ConfigurationError as error:
            return str(error)
        return None

    def count(self) -> int | None:
        """How many cards are visible; None where that cannot be told."""
        try:
            return len(self.visible(self.read()))
        except ConfigurationError:
            return None

    def usable(self) -> int:
        """How many cards a server can be started on now."""
        try:
            cards = self.read()
            return len(set(self.visible(cards)) - set(obstacles(cards)))
        except ConfigurationError:
            return 0

    @contextlib.contextmanager
    def allocate(self, count: int, on_progress: ProgressCallback) -> Iterator[Allocation]:
        """Leases cards for a server.

        Raises:
            ConfigurationError: there are not enough, whoever returns theirs.
        """
        from .leases import lease

        visible = self.visible(self.read())
        with lease(self.kind, count, visible, self._obstacles, on_progress) as ids:
            env = {self.variable: ",".join(map(str, ids))}
            yield Allocation(ids, env, lambda: self._memory_used(ids))

    def _obstacles(self) -> Mapping[int, Obstacle]:
        return obstacles(self.read())

    def _memory_used(self, ids: Collection[int]) -> float | None:
        try:
            return float(sum(card.memory_used_mib for card in self.read() if card.index in ids))
        except ConfigurationError:
            return None
