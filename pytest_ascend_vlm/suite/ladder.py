"""Criterion ladder.concurrent: the answers to more and more requests at once."""

from __future__ import annotations

import pytest

from ..session.answers import Answers
from ..session.crowds import Crowds
from ..session.judge import Judge
from .base import Criteria
from .criterion import criterion
from .determinism import judge_crowd

# Above those of determinism.concurrent: beside powers of two, and between them. How many of them
# vLLM computes in one step depends on max_num_seqs, whose default differs by device and release.
_NUMBERS = ("17", "24", "33", "48", "65", "96", "129", "192", "256")


class LadderCriteria(Criteria):
    """Criteria of a server that answers more requests at once than determinism.concurrent asks."""

    @criterion("ladder.concurrent")
    @pytest.mark.parametrize("load", [*_NUMBERS, *(f"{number}-spread" for number in _NUMBERS)])
    def test_answers_in_a_crowd_agree(
        self, load: str, crowds: Crowds, answers: Answers, judge: Judge
    ) -> None:
        """A request gets the same answer alone and as one of up to {at_once:.0f} at once.

        The rows continue those of determinism.concurrent, which go up to 12, and are judged in the
        same way: texts and images of several sizes in turns, cold, sent at one moment or one every
        {spread_seconds} s (`spread`). A number above max_num_seqs is not applicable. If the model
        file has no max_num_seqs, the server's default may be below the number: the rest waits, and
        the message has the most that ran at once. A model file may ask for fewer, with a reason:
        Thresholds(at_once=64, because="...").

        If this fails: see determinism.concurrent. The message says of how many answers the numbers
        were compared in one pass. If as many as were asked together are right, look at decoding:
        block tables, slots, and the sizes of captured graphs (cudagraph_capture_sizes). If fewer
        are right, a pass over more requests may also be wrong.
        """
        number, thresholds = int(load.partition("-")[0]), self.model.thresholds
        if number > thresholds.at_once:
            judge.not_applicable(
                f"the model file asks for no more than {thresholds.at_once:.0f} at once: "
                f"{thresholds.because}"
            )
        judge_crowd(load, self.model, crowds, answers, judge)
