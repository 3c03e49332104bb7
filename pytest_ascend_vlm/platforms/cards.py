"""A card as the vendor's command line tool reports it; used for NPUs and GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class CardProcess:
    """A process that holds memory on a card.

    Attributes:
        pid: the process id; that on the host, if the driver reports ids of host and container.
        name: the name in the table; may be empty or truncated.
        memory_mib: memory that the process holds; None if the driver does not report it.
    """

    pid: int
    name: str
    memory_mib: int | None


@dataclass(frozen=True)
class Card:
    """One card, or one die of a card that has two.

    Attributes:
        index: logical id: the index in the table, as the variable of visible cards counts.
        board: the driver's id of the card.
        die: index of the die on the card.
        name: model of the card, such as "910B4".
        health: health in the driver's words; "OK" if the card works.
        memory_used_mib: device memory in use by all processes.
        memory_total_mib: size of the device memory.
        processes: the processes that hold memory on the card.
    """

    index: int
    board: int
    die: int
    name: str
    health: str
    memory_used_mib: int
    memory_total_mib: int
    processes: tuple[CardProcess, ...] = ()


def memory_of_one(cards: Iterable[Card]) -> int | None:
    """Size of the smallest card's memory, in MiB; None if no card reports one."""
    return min((card.memory_total_mib for card in cards if card.memory_total_mib), default=None)


def cards_text(cards: Iterable[Card]) -> str:
    """The number and names of the cards: "4 x 910B4"."""
    names = Counter(card.name or "unnamed card" for card in cards)
    return ", ".join(f"{count} x {name}" for name, count in names.items())
