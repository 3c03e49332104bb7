"""Sends equal requests at one moment, at several image sizes and numbers of requests."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

from PIL import Image

from ..errors import PreconditionError
from ..load.uncached import UncachedRequests
from ..observation.grid import Burst, GridRow
from ..progress import ProgressCallback
from ..spec.case import Case
from ..spec.thresholds import GRID_ROUNDS, GRID_TOKENS
from .case_sizes import pixels

if TYPE_CHECKING:
    from ..engines.client import Chat, Client

_LEVELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Powers of two and numbers between them, where graphs and kernels pad."""

_UNDECLARED = 16
"""The most requests at once for a model file without max_num_seqs."""


class GridRuns:
    """The largest image of a model at several sizes, sent by several clients at once."""

    def __init__(
        self, client: Client, cases: Sequence[Case], directory: Path, progress: ProgressCallback
    ) -> None:
        """Sets up; measures nothing yet.

        Args:
            client: a client of the served model.
            cases: the cases with one image.
            directory: an existing directory for scaled images.
            progress: called with each step.
        """
        self._client = client
        self._case = dataclasses.replace(max(cases, key=pixels), max_tokens=GRID_TOKENS)
        self._uncached = UncachedRequests(directory)
        self._progress = progress

    @property
    def side(self) -> int:
        """The longer side of the image in pixels."""
        return max(_size(self._case))

    def row(self, side: int, levels: Sequence[int]) -> GridRow:
        """Times of the image with a longer side of so many pixels, after one round that warms up.

        Every second round has the numbers in reverse order, so that a host that becomes slower does
        not make the later numbers slow.

        Raises:
            PreconditionError: an answer has another length than it should.
            ServerError: a request was not answered.
        """
        case = self._uncached.case(self._case, side / self.side)
        self._burst(case, max(levels))
        rounds = []
        for number in range(GRID_ROUNDS):
            self._progress(f"{side} pixels: round {number + 1} of {GRID_ROUNDS}")
            order = levels if number % 2 == 0 else levels[::-1]
            found = {level: self._burst(case, level) for level in order}
            rounds.append({level: found[level] for level in levels})
        width, height = _size(case)
        return GridRow(width, height, tuple(rounds))

    def _burst(self, case: Case, level: int) -> Burst:
        start = Barrier(level)
        with self._client.disposable() as client, ThreadPoolExecutor(level) as pool:
            # Made before, because a thread that fails would let the others wait for ever.
            chats = [client.cold_chat(case) for _ in range(level)]
            times = list(pool.map(partial(_timed, client, case.id, start), chats))
        begin = min(begin for begin, _, _ in times)
        end = max(end for _, end, _ in times)
        return Burst(end - begin, tuple(ttft for _, _, ttft in times))


def levels(serve: Mapping[str, object]) -> tuple[int, ...]:
    """The numbers of requests at once for serve arguments: up to `max_num_seqs`."""
    declared = serve.get("max_num_seqs")
    most = declared if isinstance(declared, int) else _UNDECLARED
    return tuple(level for level in _LEVELS if level <= most)


def _timed(client: Client, case_id: str, start: Barrier, chat: Chat) -> tuple[float, float, float]:
    """Begin and end of a request, and its TTFT."""
    start.wait()
    begin = time.perf_counter()
    answer = client.stream_chat(case_id, chat, GRID_TOKENS)
    end = time.perf_counter()
    tokens = answer.usage.completion_tokens if answer.usage else None
    if tokens != GRID_TOKENS:
        raise PreconditionError(
            f"an answer has {tokens} tokens instead of {GRID_TOKENS}, so its time is not compared: "
            "the server does not support ignore_eos, or reports no token counts"
        )
    return begin, end, answer.first_token_seconds or answer.seconds


def _size(case: Case) -> tuple[int, int]:
    with Image.open(case.images[0]) as image:
        return image.size
