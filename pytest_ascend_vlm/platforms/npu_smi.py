"""Reads `npu-smi info`: which cards a host has, how they are, who is on them.

The table differs with driver (23 to 26) and card: a 310P has no HBM column, an A3 shows two dies a
card and a Phy-ID, ids need not start at 0, names may be blank or cut, columns come and go. So rows
are told by what is in their cells, never by their width.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import ConfigurationError

_TIMEOUT_SECONDS = 60.0
_HEALTH = re.compile(r"ok|warning|alarm|critical|unknown|offline|na", re.IGNORECASE)
_BUS_ID = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]|na", re.IGNORECASE)
_ID = re.compile(r"\d{1,9}(?=\s|$)", re.ASCII)
_USAGE = re.compile(r"(\d{1,9})\s*/\s*(\d{1,9})", re.ASCII)
_ERROR_CODE = re.compile(r"ret is (-\d+)")
_ADVICE = {
    "-8005": "the driver did not answer: is it loaded on the host (lsmod | grep drv_), are "
    "/dev/davinci_manager, /dev/devmm_svm, /dev/hisi_hdc and /usr/local/dcmi passed into the "
    "container, and may this user open them (group HwHiAiUser)?",
    "-8020": "the card is occupied by another container or virtual machine: stop that one, or pass "
    "another /dev/davinci* device.",
}


class NpuSmiError(ConfigurationError):
    """`npu-smi info` gave no table of cards; the message says what it gave and what to do."""


@dataclass(frozen=True)
class CardProcess:
    """A process that holds memory on a card.

    Attributes:
        pid: its id, on the host where the driver tells both.
        name: as far as the table shows it; may be empty or cut.
        memory_mib: what it holds.
    """

    pid: int
    name: str
    memory_mib: int


@dataclass(frozen=True)
class Card:
    """One card, or one die of a card that has two.

    Attributes:
        index: its place in the table, the id that `ASCEND_RT_VISIBLE_DEVICES` counts.
        npu_id: the driver's id of the card.
        chip_id: the die on it.
        name: the model, "910B4".
        health: as the driver says it, "OK" when well.
        memory_used_mib: device memory in use, all processes together.
        memory_total_mib: device memory.
        processes: who holds memory on it.
    """

    index: int
    npu_id: int
    chip_id: int
    name: str
    health: str
    memory_used_mib: int
    memory_total_mib: int
    processes: tuple[CardProcess, ...] = ()


def read_cards() -> tuple[Card, ...]:
    """The cards of this host.

    Raises:
        NpuSmiError: npu-smi is not there, hangs, or shows no card.
    """
    try:
        done = subprocess.run(
            ["npu-smi", "info"],  # noqa: S607  (found on PATH, as everyone calls it)
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise NpuSmiError(
            "npu-smi is not on PATH; in a container mount /usr/local/bin/npu-smi and the driver."
        ) from None
    except subprocess.TimeoutExpired:
        raise NpuSmiError(
            f"npu-smi info did not answer within {_TIMEOUT_SECONDS:.0f} s; a card hangs. Reset it, "
            "or restart the driver, before anything is run on it."
        ) from None
    return parse_npu_smi(f"{done.stdout}\n{done.stderr}")


def parse_npu_smi(text: str) -> tuple[Card, ...]:
    """The cards in the output of `npu-smi info`, in its order.

    Raises:
        NpuSmiError: there is no card in it.
    """
    rows = [_cells(line) for line in text.splitlines()]
    cards = list(_cards(rows))
    if not cards:
        raise NpuSmiError(_explain(text))
    processes = list(_processes(rows))
    return tuple(
        replace(
            card,
            index=index,
            processes=tuple(p for where, p in processes if where == (card.npu_id, card.chip_id)),
        )
        for index, card in enumerate(cards)
    )


def _cells(line: str) -> list[str]:
    stripped = line.strip()
    if not (stripped.startswith("|") and stripped.endswith("|") and len(stripped) > 1):
        return []
    return [cell.strip() for cell in stripped[1:-1].split("|")]


def _cards(rows: list[list[str]]) -> Iterator[Card]:
    """A card is two rows: id, name and health; then chip, bus id and memory."""
    first: list[str] | None = None
    for row in rows:
        if first is not None and _is_second_row(row):
            yield _card(first, row)
            first = None
        elif _is_first_row(row):
            first = row


def _is_first_row(row: list[str]) -> bool:
    return len(row) >= 3 and _ID.match(row[0]) is not None and _HEALTH.fullmatch(row[1]) is not None


def _is_second_row(row: list[str]) -> bool:
    return len(row) >= 3 and _ID.match(row[0]) is not None and _BUS_ID.fullmatch(row[1]) is not None


def _card(first: list[str], second: list[str]) -> Card:
    npu_id, *name = first[0].split()
    # Device memory is the largest of the columns: a card with HBM shows "0 / 0" for the other.
    used, total = max(_usages(second[2:]), key=lambda usage: usage[1], default=(0, 0))
    return Card(
        index=0,
        npu_id=int(npu_id),
        chip_id=int(second[0].split()[0]),
        name=" ".join(name),
        health=first[1],
        memory_used_mib=used,
        memory_total_mib=total,
    )


def _usages(cells: list[str]) -> list[tuple[int, int]]:
    return [(int(used), int(total)) for used, total in _USAGE.findall(" | ".join(cells))]


def _processes(rows: list[list[str]]) -> Iterator[tuple[tuple[int, int], CardProcess]]:
    """A process is a row of its own: "npu chip", pid, perhaps the pid inside, name, memory."""
    for row in rows:
        ids = row[0].split() if row else []
        numbers = (*ids, row[1], row[-1]) if len(row) >= 4 and len(ids) == 2 else ()
        if numbers and all(_is_number(number) for number in numbers):
            where = (int(ids[0]), int(ids[1]))
            yield where, CardProcess(int(row[1]), row[-2], int(row[-1]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _explain(text: str) -> str:
    code = _ERROR_CODE.search(text)
    shown = " ".join(text.split())[:200] or "(nothing)"
    advice = _ADVICE.get(code[1] if code else "", "run it by hand, and look at the driver's log.")
    return f"npu-smi info shows no card but {shown!r}: {advice}"
