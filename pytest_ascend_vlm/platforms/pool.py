"""The cards of a host: counts visible and usable cards, and leases some of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ConfigurationError
from ..progress import ProgressCallback
from .base import Allocation
from .cards import Card
from .preflight import Obstacle, obstacles, visible_cards


@dataclass(frozen=True)
class Pool:
    """The cards of one kind on this host.

    Attributes:
        kind: kind of the cards, such as "npu".
        variable: name of the environment variable that lists the visible cards.
        ascending: True if the variable must list them in ascending order.
        read: reads the cards with the vendor's tool; raises ConfigurationError if that fails.
        health_command: command that shows the health of the card `{board}`; empty without one.
    """

    kind: str
    variable: str
    ascending: bool
    read: Callable[[], tuple[Card, ...]]
    health_command: str = ""

    def visible(self, cards: Collection[Card]) -> tuple[int, ...]:
        """The ids of the cards that the caller's environment leaves visible.

        Raises:
            ConfigurationError: the variable is malformed, or names cards that do not exist.
        """
        value = os.environ.get(self.variable)
        return visible_cards(self.variable, value, len(cards), self.ascending)

    def visible_problem(self) -> str | None:
        """Reason why the variable of visible cards is wrong, or None."""
        try:
            self.visible(self.read())
        except ConfigurationError as error:
            return str(error)
        return None

    def count(self) -> int | None:
        """The number of visible cards; None if it is unknown."""
        try:
            return len(self.visible(self.read()))
        except ConfigurationError:
            return None

    def usable(self) -> int:
        """The number of cards that a server can be started on now."""
        try:
            cards = self.read()
            return len(set(self.visible(cards)) - set(self.obstacles(cards)))
        except ConfigurationError:
            return 0

    @contextlib.contextmanager
    def allocate(self, count: int, on_progress: ProgressCallback) -> Iterator[Allocation]:
        """Leases cards for a server for the duration of the context.

        Args:
            count: number of cards.
            on_progress: called with a line of text while the lease waits.

        Raises:
            ConfigurationError: the host has too few cards, even counting those leased to other
                runs.
        """
        from .leases import lease

        visible = self.visible(self.read())
        with lease(
            self.kind, count, visible, lambda: self.obstacles(self.read()), on_progress
        ) as ids:
            env = {self.variable: ",".join(map(str, ids))}
            yield Allocation(ids, env, lambda: self._memory_used(ids))

    def obstacles(self, cards: Iterable[Card]) -> Mapping[int, Obstacle]:
        """Card id -> obstacle, for the cards that cannot be used now."""
        return obstacles(cards, self.health_command)

    def _memory_used(self, ids: Collection[int]) -> float | None:
        try:
            return float(sum(card.memory_used_mib for card in self.read() if card.index in ids))
        except ConfigurationError:
            return None
