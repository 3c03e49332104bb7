"""A card as the driver's tool tells it, whoever made the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class CardProcess:
    """A process that holds memory on a card.

    Attributes:
        pid: its id, on the host where the driver tells both.
        name: as far as the table shows it; may be empty or cut.
        memory_mib: what it holds; None where the driver does not tell.
    """

    pid: int
    name: str
    memory_mib: int | None


@dataclass(frozen=True)
class Card:
    """One card, or one die of a card that has two.

    Attributes:
        index: its place in the table, the id that the variable of visible cards counts.
        board: the driver's id of the card.
        die: the die on it.
        name: the model, "910B4".
        health: as the driver says it, "OK" when well.
        memory_used_mib: device memory in use, all processes together.
        memory_total_mib: device memory.
        processes: who holds memory on it.
    """

    index: int
    board: int
    die: int
    name: str
    health: str
    memory_used_mib: int
    memory_total_mib: int
    processes: tuple[CardProcess, ...] = ()


def cards_text(cards: Iterable[Card]) -> str:
    """The cards by name and number, "4 x 910B4"."""
    names = Counter(card.name or "unnamed card" for card in cards)
    return ", ".join(f"{count} x {name}" for name, count in names.items())
