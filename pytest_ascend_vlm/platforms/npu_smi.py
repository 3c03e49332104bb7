"""Parses `npu-smi info`: the host's cards with health, memory and processes.

The table depends on the driver (23 to 26) and the card. A 310P has no HBM column. An A3 has two
dies per card and a Phy-ID. A 950 has a separate column for the name and no chip. Ids need not start
at 0, names may be blank or truncated, and columns come and go. Therefore rows are recognized by
the content of their cells, never by their width.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ..errors import ConfigurationError
from .cards import Card, CardProcess
from .tool import Tool

_HEALTH = re.compile(r"ok|warning|alarm|critical|unknown|offline|na", re.IGNORECASE)
_BUS_ID = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]|na", re.IGNORECASE)
_ID = re.compile(r"\d{1,9}(?=\s|$)", re.ASCII)
_USAGE = re.compile(r"(\d{1,9})\s*/\s*(\d{1,9})", re.ASCII)
_PROCESS_COLUMNS = ("process id", "process name", "process memory(mb)")
_VERSION = re.compile(r"\bVersion:\s*(\S+)")
_ADVICE = {
    "ret is -8005": "an internal error of the driver. Usually another container uses the card: "
    "stop that container, or pass another /dev/davinci* device. Otherwise check that the driver "
    "is loaded on the host (lsmod | grep drv_), that /dev/davinci_manager, /dev/devmm_svm, "
    "/dev/hisi_hdc, /usr/local/dcmi and the driver's lib64 are passed into the container, and that "
    "this user may open them (group HwHiAiUser).",
    "ret is -8020": "the card is occupied by another container, process or virtual machine: stop "
    "it, or pass another /dev/davinci* device. If nothing else uses the card, source CANN's "
    "set_env.sh.",
    "error while loading shared libraries": "mount /usr/local/Ascend/driver/lib64 and add it, with "
    "its driver and common directories, to LD_LIBRARY_PATH.",
}


class NpuSmiError(ConfigurationError):
    """`npu-smi info` printed no cards; the message quotes the output and gives advice."""


_NPU_SMI = Tool(
    "npu-smi",
    NpuSmiError,
    if_missing="in a container mount /usr/local/bin/npu-smi and the driver",
    if_broken="install the driver again",
    if_hanging="a card hangs. Reset it, or restart the driver, before you use it",
)


def read_cards() -> tuple[Card, ...]:
    """The cards of this host.

    Raises:
        NpuSmiError: npu-smi is missing, hangs, or shows no card.
    """
    return parse_npu_smi(read_table())


def read_table() -> str:
    """The output of `npu-smi info`.

    Raises:
        NpuSmiError: npu-smi is missing, cannot be run, or hangs.
    """
    done = _NPU_SMI.ask("info")
    return f"{done.stdout}\n{done.stderr}"


def driver_version(text: str) -> str | None:
    """The driver's version in the header of the table; None if the header has none."""
    found = _VERSION.search(text)
    return found[1] if found else None


def parse_npu_smi(text: str) -> tuple[Card, ...]:
    """The cards in the output of `npu-smi info`, in the order of the table.

    Raises:
        NpuSmiError: the output contains no card.
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
            processes=tuple(p for where, p in processes if where == (card.board, card.die)),
        )
        for index, card in enumerate(cards)
    )


def _cells(line: str) -> list[str]:
    stripped = line.strip()
    if not (stripped.startswith("|") and stripped.endswith("|") and len(stripped) > 1):
        return []
    return [cell.strip() for cell in stripped[1:-1].split("|")]


def _cards(rows: list[list[str]]) -> Iterator[Card]:
    """Yields the cards; each has two rows: id, name and health, then chip, bus id and memory."""
    first: list[str] = []
    at = 0
    for row in rows:
        if first and len(row) > at and _BUS_ID.fullmatch(row[at]) and _chip(row) is not None:
            yield _card(first, row, at)
            first = []
        elif (health_at := _health_at(row)) is not None:
            first, at = row, health_at


def _health_at(row: list[str]) -> int | None:
    """The index of the health column in the first row of a card; None for any other row.

    It is 1, or 2 if the name has a column of its own (Ascend 950).
    """
    if len(row) < 3 or not _ID.match(row[0]):
        return None
    if _HEALTH.fullmatch(row[1]):
        return 1
    return 2 if _HEALTH.fullmatch(row[2]) and not _is_number(row[1]) else None


def _chip(second: list[str]) -> int | None:
    """The index of the die; 0 if the cell is blank (one die per card), None if it has no number."""
    if not second[0]:
        return 0
    return int(second[0].split()[0]) if _ID.match(second[0]) else None


def _card(first: list[str], second: list[str], health_at: int) -> Card:
    board, *name = [word for cell in first[:health_at] for word in cell.split()]
    # Device memory is the column with the largest total: cards with HBM show 0 / 0 in the other.
    usages = _usages(second[health_at + 1 :])
    used, total = max(usages, key=lambda usage: usage[1], default=(0, 0))
    return Card(
        index=0,
        board=int(board),
        die=_chip(second) or 0,
        name=" ".join(name),
        health=first[health_at],
        memory_used_mib=used,
        memory_total_mib=total,
    )


def _usages(cells: list[str]) -> list[tuple[int, int]]:
    return [(int(used), int(total)) for used, total in _USAGE.findall(" | ".join(cells))]


def _processes(rows: list[list[str]]) -> Iterator[tuple[tuple[int, int], CardProcess]]:
    """Yields ((board, die), process) for each process row; columns are found by their headings.

    The first cell of a row is "npu chip" or "npu".
    """
    pid, name, memory = 1, 2, 3
    for row in rows:
        headings = [cell.lower() for cell in row]
        if set(_PROCESS_COLUMNS) <= set(headings):
            pid, name, memory = map(headings.index, _PROCESS_COLUMNS)
        ids = row[0].split() if row else []
        if len(ids) in {1, 2} and len(row) > max(pid, name, memory):
            numbers = (*ids, row[pid], row[memory])
            if all(map(_is_number, numbers)):
                where = (int(ids[0]), int(ids[1]) if len(ids) == 2 else 0)
                yield where, CardProcess(int(row[pid]), row[name], int(row[memory]))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _explain(text: str) -> str:
    shown = " ".join(text.split())[:200] or "(nothing)"
    known = (advice for error, advice in _ADVICE.items() if error in text)
    advice = next(known, "run the command by hand, and check the driver's log.")
    return f"npu-smi info shows no card; it printed {shown!r}: {advice}"
