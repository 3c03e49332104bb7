"""Criterion grid.cliffs: speed by image size and number of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..criteria.grid import judge_cliffs
from ..session.grid import levels
from ..session.judge import Judge
from ..spec.case import Capability
from .base import Criteria
from .criterion import criterion

if TYPE_CHECKING:
    from ..session.grid import GridRuns

_LEAST_LEVELS = 3


class GridCriteria(Criteria):
    """Criteria of speed over a grid of image sizes and numbers of requests."""

    @criterion("grid.cliffs", needs=Capability.IMAGE)
    @pytest.mark.parametrize("side", ["448", "896", "largest"])
    def test_no_number_of_requests_is_a_cliff(
        self, side: str, grid: GridRuns, judge: Judge
    ) -> None:
        """No number of requests at once is far slower than the numbers beside it.

        The largest image of the suite, scaled to a longer side of 448 and 896 pixels and in its own
        size, is sent by 1, 2, 3, 4, 6, 8, 12 ... clients at one moment, up to max_num_seqs. No
        cache has the image, and each answer has {grid_tokens} tokens. The time a request is that of
        the burst divided by its requests. A number must not be more than {cliff_ratio} times slower
        a request than both its neighbours, in {grid_rounds} rounds that are measured in turns.
        Graphs are captured for some numbers, and kernels pad to powers of two: a number between
        them may fall back to a slow path, and no average shows it. The report shows TTFT and
        throughput of the whole grid.

        If this fails: serve with enforce_eager=True. If the cliff is gone, compare the number with
        cudagraph_capture_sizes. If not, profile the vision tower with this number of images.
        """
        serve = self.model.serve
        numbers = levels(serve)
        if len(numbers) < _LEAST_LEVELS:
            judge.not_applicable(f"max_num_seqs={serve['max_num_seqs']} has no number between two")
        pixels = grid.side if side == "largest" else int(side)
        if pixels > grid.side or (side != "largest" and pixels == grid.side):
            judge.not_applicable(f"the largest image has a longer side of {grid.side} pixels")
        judge(judge_cliffs(grid.row(pixels, numbers), self.model.thresholds.cliff_ratio))
