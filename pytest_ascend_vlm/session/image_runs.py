"""Images that the served model computes again, alone and together with others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..spec.case import Case, Sampling
from ..spec.thresholds import BATCH, COLD_RUNS
from .case_sizes import by_size, in_turns, pixels

if TYPE_CHECKING:
    from ..criteria.comparison import CaseComparison
    from ..engines.client import Client
    from ..observation.answers import Completion
    from ..observation.caches import CacheUse
    from ..observation.numerics import Forced
    from .answers import Answers, ForcedAnswers
    from .goldens import Goldens

_T = TypeVar("_T")
_BEGINNING = Sampling(max_tokens=32)


@dataclass(frozen=True)
class ImageRuns:
    """Images that the served model computes again. Every request is cold.

    Attributes:
        client: the client of the served model.
        answers: the answers to each case alone.
        forced: the logits of each case alone.
        golden: the references.
    """

    client: Client
    answers: Answers
    forced: ForcedAnswers
    golden: Goldens

    def again(
        self, cases: Sequence[Case]
    ) -> tuple[dict[str, list[CaseComparison]], CacheUse | None]:
        """The logits of the first, the smallest and the largest image, computed several times.

        The first computation is the known one. The largest image is computed only once more,
        because it takes longer than all others.

        Returns:
            Case id -> the logits of each computation; the server's cache counters for the new ones.
        """
        few = _first_smallest_largest(cases)
        known = [self.forced(case) for case in few]
        largest = max(few, key=pixels) if len(few) > 1 else None
        again, caches = self._counting(
            lambda: [
                [self.forced.again(case) for _ in range(1 if case is largest else COLD_RUNS - 1)]
                for case in few
            ]
        )
        runs = {
            case.id: [self._compared(case, one) for one in (first, *others)]
            for case, first, others in zip(few, known, again, strict=True)
        }
        return runs, caches

    def answers_together(
        self, cases: Sequence[Case]
    ) -> tuple[dict[str, Completion], list[Completion], CacheUse | None]:
        """The answers to cases that are asked at one moment.

        Returns:
            Case id -> the whole answer to the case alone; the beginnings of the answers to cases
            that were asked at one moment; the server's cache counters for the latter.
        """
        batches = _batches(cases)
        alone = {case.id: self.answers(case) for batch in batches for case in batch}
        together, caches = self._counting(
            lambda: [
                one for batch in batches for one in self.client.ask_together(batch, _BEGINNING)
            ]
        )
        return alone, together, caches

    def logits_together(
        self, cases: Sequence[Case]
    ) -> tuple[list[tuple[CaseComparison, CaseComparison]], CacheUse | None]:
        """The logits of cases that are asked at one moment.

        Returns:
            For each case, its logits alone and together with others; the server's cache counters
            for the latter.
        """
        batches = _batches(cases)
        alone = [self._compared(case, self.forced(case)) for batch in batches for case in batch]
        together, caches = self._counting(
            lambda: [
                (case, one)
                for batch in batches
                for case, one in zip(batch, self.forced.together(batch), strict=True)
            ]
        )
        return list(zip(alone, (self._compared(*one) for one in together), strict=True)), caches

    def _compared(self, case: Case, forced: Forced) -> CaseComparison:
        from ..criteria.comparison import compare_logits

        return compare_logits(forced, self.golden.numerics(case))

    def _counting(self, work: Callable[[], _T]) -> tuple[_T, CacheUse | None]:
        from ..engines.vllm.metrics import measure

        result, counted = measure(self.client.endpoint, work)
        return result, counted.caches


def _batches(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Different images of one size, and different images of several sizes.

    Among the sizes the small ones come first: a large image is a batch by itself, and takes long.
    """
    different = reversed({case.every_image: case for case in reversed(cases)}.values())
    groups = by_size(sorted(different, key=pixels)).values()
    return max(groups, key=len)[:BATCH], in_turns(groups)[:BATCH]


def _first_smallest_largest(cases: Sequence[Case]) -> list[Case]:
    chosen = (cases[0], min(cases, key=pixels), max(cases, key=pixels))
    return list({case.id: case for case in chosen}.values())
