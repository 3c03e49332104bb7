"""Many different requests at one time, and the same requests one after another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engines.vllm.metrics import watch_running
from ..progress import ProgressCallback
from ..spec.case import Case
from ..spec.thresholds import BATCH
from .answers import Answers, ForcedAnswers
from .case_sizes import by_size, in_turns
from .goldens import Goldens

if TYPE_CHECKING:
    from ..criteria.determinism import ForcedErrors
    from ..criteria.error_statistics import ErrorStatistics
    from ..engines.client import Client
    from ..observation.answers import Completion, Reference
    from ..observation.numerics import Forced


@dataclass(frozen=True)
class Crowd:
    """The answers to many requests.

    Attributes:
        alone: case id -> the answer to the case alone.
        together: the answers to the same cases at one time; a case may be asked several times.
        running: the most requests that the server was seen to compute at once; None if it does not
            tell.
    """

    alone: Mapping[str, Completion]
    together: tuple[Completion, ...]
    running: int | None


class Crowds:
    """Texts and images of several sizes in turns, sent at one time and cold."""

    def __init__(
        self,
        client: Client,
        cases: Sequence[Case],
        forced: ForcedAnswers,
        golden: Goldens,
        progress: ProgressCallback,
    ) -> None:
        """Sets up; asks nothing yet.

        Args:
            client: a client of the served model.
            cases: all cases.
            forced: the served model's logits for the goldens' answers.
            golden: the references.
            progress: called with each step.
        """
        self._client = client
        self._cases = {case.id: case for case in cases}
        self._forced = forced
        self._golden = golden
        self._progress = progress

    def ask(self, count: int, interval: float, answers: Answers) -> Crowd:
        """The answers to a number of requests, and to each of their cases alone.

        Args:
            count: the number of requests.
            interval: seconds from one request to the next; 0 to send all at one moment.
            answers: the answers to the cases alone.

        Raises:
            ServerError: the server refused a request, or died.
        """
        return self._ask(
            count, answers, lambda cases: self._client.ask_together(cases, interval=interval)
        )

    def stream(self, count: int, answers: Answers) -> Crowd:
        """The answers of requests, as `ask` gives them, sent at one moment and streamed.

        Raises:
            ServerError: the server refused a request, or died, or a stream broke off.
        """
        return self._ask(count, answers, self._client.stream_together)

    def _ask(
        self,
        count: int,
        answers: Answers,
        ask: Callable[[Sequence[Case]], tuple[Completion, ...]],
    ) -> Crowd:
        cases = list(itertools.islice(self._in_turns(), count, 2 * count))
        alone = {case.id: answers(case) for case in cases}
        self._progress(f"{count} requests at once")
        together, running = watch_running(self._client.endpoint, lambda: ask(cases))
        return Crowd(alone, together, running)

    def reference(self, case_id: str) -> Reference:
        """The reference of a case."""
        return self._golden(self._cases[case_id])

    def errors(self, names: Sequence[str]) -> ForcedErrors:
        """The errors of forced answers to some cases: one after another, and at one moment.

        Up to `BATCH` cases are asked, because the numbers of a prompt take much memory. So a fault
        of a pass over more requests than these does not show.

        Raises:
            GoldenError, PreconditionError, ServerError: as for a single forced answer.
        """
        from ..criteria.determinism import ForcedErrors

        cases = [self._cases[name] for name in names[:BATCH]]
        alone = self._error(cases, [self._forced(case) for case in cases])
        if len(cases) == 1:
            return ForcedErrors(alone, None)
        return ForcedErrors(alone, self._error(cases, self._forced.together(cases)))

    def _error(self, cases: Sequence[Case], forced: Sequence[Forced]) -> ErrorStatistics:
        from ..criteria.comparison import compare_logits
        from ..criteria.error_statistics import ErrorStatistics

        pairs = zip(cases, forced, strict=True)
        return ErrorStatistics(
            [compare_logits(got, self._golden.numerics(case)) for case, got in pairs]
        )

    def _in_turns(self) -> Iterator[Case]:
        """Cases with an image, of one size after another, and those without, endlessly."""
        groups = by_size(self._cases.values())
        texts = groups.pop((), [])
        kinds = [itertools.cycle(kind) for kind in (in_turns(groups.values()), texts) if kind]
        return itertools.chain.from_iterable(zip(*kinds, strict=True))
