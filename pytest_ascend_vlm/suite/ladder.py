"""Criterion ladder.concurrent: the answers to more and more requests at once."""

from __future__ import annotations

import pytest

from ..session.answers import Answers
from ..session.crowds import Crowds
from ..session.judge import Judge
from .base import Criteria
from .criterion import criterion
from .determinism import judge_crowd

# Above those of determinism.concurrent: beside powers of two, and between them. vLLM computes up to
# 256 requests in one step unless max_num_seqs says otherwise.
_NUMBERS = ("17", "24", "33", "48", "65", "96", "129", "192", "256")


class LadderCriteria(Criteria):
    """Criteria of a server that answers as many requests at once as it computes in one step."""

    @criterion("ladder.concurrent")
    @pytest.mark.parametrize("load", [*_NUMBERS, *(f"{number}-spread" for number in _NUMBERS)])
    def test_answers_in_a_crowd_agree(
        self, load: str, crowds: Crowds, answers: Answers, judge: Judge
    ) -> None:
        """A request gets the same answer alone and as one of up to {at_once:.0f} at once.

        The rows continue those of determinism.concurrent, which go up to 12, and are judged in the
        same way: texts and images of several sizes in turns, cold, sent at one moment or one every
        {spread_seconds} s (`spread`). A number above max_num_seqs is not applicable. A model file
        may ask for fewer, with a reason: Thresholds(at_once=64, because="...").

        If this fails: see determinism.concurrent. The message says whether the numbers of the
        answers that differ are right in one pass. If they are, look at decoding: block tables,
        slots, and the sizes of captured graphs (cudagraph_capture_sizes).
        """
        number, thresholds = int(load.partition("-")[0]), self.model.thresholds
        if number > thresholds.at_once:
            judge.not_applicable(
                f"the model file asks for no more than {thresholds.at_once:.0f} at once: "
                f"{thresholds.because}"
            )
        judge_crowd(load, self.model, crowds, answers, judge)
