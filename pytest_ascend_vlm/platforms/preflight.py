"""What can be wrong with a host before a server starts, in words; looks at nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from .cards import Card, CardProcess

# An idle card of 32 GB or more has at most a tenth of its memory in use, by the driver itself.
_IDLE_SHARE = 0.15
_SHOWN = 3
_ID = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class Obstacle:
    """Why a card cannot be used now.

    Attributes:
        reason: in words, with the card.
        passing: whether it may pass within seconds: a process that ends frees its card.
    """

    reason: str
    passing: bool


def visible_cards(variable: str, value: str | None, count: int, ascending: bool) -> tuple[int, ...]:
    """The cards that an environment variable leaves visible.

    Args:
        variable: its name.
        value: its value; None where it is not set.
        count: how many cards the host has.
        ascending: whether the ids have to be in ascending order.

    Raises:
        ConfigurationError: the value does not do what it seems to. The drivers read it up to the
            first thing they do not understand and ignore the rest without a word.
    """
    if value is None:
        return tuple(range(count))
    if not value:
        raise ConfigurationError(
            f"{variable} is empty, which hides every card; unset it, or name the cards to use."
        )
    words = value.split(",")
    if strange := [word for word in words if not _ID.fullmatch(word)]:
        raise ConfigurationError(
            f"{variable}={value} holds {strange[0]!r}, which is not a card's id; write ids and "
            f"commas and nothing else, as in {variable}=0,1,2."
        )
    ids = tuple(map(int, words))
    if repeated := sorted({card for card in ids if ids.count(card) > 1}):
        raise ConfigurationError(f"{variable}={value} names {_cards(repeated)} more than once.")
    if absent := [card for card in ids if card >= count]:
        raise ConfigurationError(
            f"{variable}={value} names {_cards(absent)}, but this host has {_range(count)}. Inside "
            "a container the cards that were passed into it are counted from 0."
        )
    if ascending and list(ids) != sorted(ids):
        right = ",".join(map(str, sorted(ids)))
        raise ConfigurationError(
            f"{variable}={value} is not in ascending order, which CANN refuses; write {right}."
        )
    return ids


def obstacles(cards: Iterable[Card]) -> dict[int, Obstacle]:
    """The cards that cannot be used, by id."""
    found = ((card.index, _obstacle(card)) for card in cards)
    return {index: obstacle for index, obstacle in found if obstacle is not None}


def _obstacle(card: Card) -> Obstacle | None:
    name = f"card {card.index} ({card.name})" if card.name else f"card {card.index}"
    if card.health.upper() != "OK":
        look = f"npu-smi info -t health -i {card.board}"
        return Obstacle(f"{name}: health is {card.health}; see {look}", passing=False)
    if card.processes:
        return Obstacle(f"{name} is occupied: {_holders(card.processes)}", passing=True)
    if card.memory_used_mib > _IDLE_SHARE * card.memory_total_mib > 0:
        return Obstacle(
            f"{name} is occupied: {card.memory_used_mib} of {card.memory_total_mib} MiB are in use "
            "by processes that cannot be seen from here (of another container?)",
            passing=True,
        )
    return None


def _holders(processes: Sequence[CardProcess]) -> str:
    largest = sorted(processes, key=lambda process: -(process.memory_mib or 0))
    more = f" and {len(processes) - _SHOWN} more" if len(processes) > _SHOWN else ""
    return ", ".join(map(_holder, largest[:_SHOWN])) + more


def _holder(process: CardProcess) -> str:
    who = f"pid {process.pid} ({process.name})" if process.name else f"pid {process.pid}"
    return who if process.memory_mib is None else f"{who} holds {process.memory_mib} MiB"


def _cards(ids: Sequence[int]) -> str:
    *rest, last = map(str, ids)
    return f"cards {', '.join(rest)} and {last}" if rest else f"card {last}"


def _range(count: int) -> str:
    return f"the cards 0 to {count - 1}" if count > 1 else "only card 0"
