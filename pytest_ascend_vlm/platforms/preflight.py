"""Finds reasons why cards cannot be used, before a server starts; pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ConfigurationError
from .cards import Card, CardProcess

# On an idle card of 32 GB or more, the driver itself uses at most 10 % of the memory.
_IDLE_SHARE = 0.15
_SHOWN = 3
_ID = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class Obstacle:
    """A reason why a card cannot be used now.

    Attributes:
        reason: the reason, with the id and name of the card.
        temporary: True if the obstacle may disappear within seconds, because a process ends.
    """

    reason: str
    temporary: bool


def visible_cards(variable: str, value: str | None, count: int, ascending: bool) -> tuple[int, ...]:
    """The ids of the cards that an environment variable leaves visible.

    Args:
        variable: name of the variable.
        value: value of the variable; None if it is not set.
        count: number of cards of the host.
        ascending: True if the ids must be in ascending order.

    Raises:
        ConfigurationError: the value is malformed, or names a card twice or one that does not
            exist. The drivers would silently ignore everything from the first error on.
    """
    if value is None:
        return tuple(range(count))
    if not value:
        raise ConfigurationError(
            f"{variable} is empty, which hides all cards; unset it, or name the cards to use."
        )
    words = value.split(",")
    if strange := [word for word in words if not _ID.fullmatch(word)]:
        raise ConfigurationError(
            f"{variable}={value} contains {strange[0]!r}, which is not the id of a card; write ids "
            f"separated by commas, without spaces, as in {variable}=0,1,2."
        )
    ids = tuple(map(int, words))
    if repeated := sorted({card for card in ids if ids.count(card) > 1}):
        raise ConfigurationError(
            f"{variable}={value} names {_cards(repeated)} more than once; name each card once."
        )
    if absent := [card for card in ids if card >= count]:
        raise ConfigurationError(
            f"{variable}={value} names {_cards(absent)}, but this host has {_range(count)}. In a "
            "container, the cards that were passed into it are numbered from 0."
        )
    if ascending and list(ids) != sorted(ids):
        right = ",".join(map(str, sorted(ids)))
        raise ConfigurationError(
            f"{variable}={value} is not in ascending order, which CANN requires; write {right}."
        )
    return ids


def obstacles(cards: Iterable[Card], health_command: str = "") -> dict[int, Obstacle]:
    """Card id -> obstacle, for the cards that cannot be used now.

    Args:
        cards: the cards.
        health_command: command that shows the health of the card `{board}`; empty without one.
    """
    found = ((card.index, _obstacle(card, health_command)) for card in cards)
    return {index: obstacle for index, obstacle in found if obstacle is not None}


def _obstacle(card: Card, health_command: str) -> Obstacle | None:
    name = f"card {card.index} ({card.name})" if card.name else f"card {card.index}"
    if card.health.upper() != "OK":
        see = f"; see {health_command.format(board=card.board)}" if health_command else ""
        return Obstacle(f"{name}: health is {card.health}{see}", temporary=False)
    if card.processes:
        return Obstacle(f"{name} is occupied: {_holders(card.processes)}", temporary=True)
    if card.memory_used_mib > _IDLE_SHARE * card.memory_total_mib > 0:
        return Obstacle(
            f"{name} is occupied: {card.memory_used_mib} of {card.memory_total_mib} MiB are in use "
            "by processes that are not visible here (in another container?)",
            temporary=True,
        )
    return None


def _holders(processes: Sequence[CardProcess]) -> str:
    largest = sorted(processes, key=lambda process: -(process.memory_mib or 0))
    more = f" and {len(processes) - _SHOWN} more" if len(processes) > _SHOWN else ""
    return ", ".join(map(_holder, largest[:_SHOWN])) + more


def _holder(process: CardProcess) -> str:
    name = f"pid {process.pid} ({process.name})" if process.name else f"pid {process.pid}"
    return name if process.memory_mib is None else f"{name} holds {process.memory_mib} MiB"


def _cards(ids: Sequence[int]) -> str:
    *rest, last = map(str, ids)
    return f"cards {', '.join(rest)} and {last}" if rest else f"card {last}"


def _range(count: int) -> str:
    return f"the cards 0 to {count - 1}" if count > 1 else "only card 0"
