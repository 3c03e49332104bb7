"""Times single requests of one served model: alone, in pairs, and against another endpoint."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..criteria.criterion import Cases
from ..criteria.distribution import Metric
from ..criteria.performance import Prefill, median_ratio
from ..engines.vllm import metrics
from ..engines.vllm.metrics import Measured
from ..errors import PreconditionError, ServerError
from ..load.uncached import UncachedRequests
from ..observation.answers import Completion
from ..observation.load import Load, Timing
from ..spec.case import Capability, Case
from ..spec.thresholds import PAIRS, ROUNDS, WARMUPS, WIRE_REQUESTS
from .random_words import words_of

if TYPE_CHECKING:
    from ..engines.client import Client
    from .model import ModelSession

_SCALES = (0.25, 0.5, 0.75, 1.0)
_ROUNDS_PER_SCALE = 5


class RequestTimer:
    """Times requests that are not in the server's prefix cache or multimodal cache.

    Attributes:
        client: the client of the served model.
        uncached: makes variants of requests that no cache contains.
    """

    def __init__(self, client: Client, uncached: UncachedRequests) -> None:
        self.client = client
        self.uncached = uncached
        self._image_tokens: dict[str, int] = {}

    def time(self, client: Client, case: Case, max_tokens: int | None = None) -> Timing:
        """Sends one streamed request; returns its timing.

        Raises:
            ServerError: the server refused the request, closed the stream early, or reported no
                token counts.
        """
        return timing_of(self._stream(client, case, max_tokens or case.max_tokens))

    def _stream(self, client: Client, case: Case, max_tokens: int) -> Completion:
        return client.stream(case, self.uncached.sampling(max_tokens), bare=True)

    @contextlib.contextmanager
    def warm(self, cases: Sequence[Case]) -> Iterator[Client]:
        """A client whose server has just answered warm-up requests of this kind.

        It is a separate client, so the judge of the test that happens to measure first does not
        check its answers.
        """
        with self.client.disposable() as client:
            for case in itertools.islice(itertools.cycle(cases), WARMUPS):
                with contextlib.suppress(ServerError):
                    self.time(client, self.uncached.case(case))
            yield client

    def one_at_a_time(self, cases: Sequence[Case]) -> Load:
        """Sends `ROUNDS` requests, one at a time; returns their timings."""
        answers: list[Timing] = []
        errors: list[str] = []

        def ask_all(client: Client) -> None:
            for case in itertools.islice(itertools.cycle(cases), ROUNDS):
                try:
                    answers.append(self.time(client, self.uncached.case(case)))
                except ServerError as error:
                    errors.append(str(error))

        with self.warm(cases) as client:
            _, counted = metrics.measure(self.client.endpoint, lambda: ask_all(client))
        return _load(answers, errors, counted)

    def with_wire(self, load: Load, cases: Sequence[Case]) -> Load:
        """Adds the time of the wire to a load of these cases, if the server reports its times."""
        if not load.server_seconds:
            return load
        few = itertools.islice(itertools.cycle(cases), WIRE_REQUESTS)
        with self.client.disposable() as client:

            def latencies() -> list[float]:
                return [self._stream(client, self.uncached.case(case), 1).seconds for case in few]

            try:
                seconds, counted = metrics.measure(self.client.endpoint, latencies)
            except ServerError:
                return load
        if counted.requests != WIRE_REQUESTS:
            return load
        beyond = statistics.fmean(seconds) - counted.seconds["latency"]
        return replace(load, wire_seconds=max(beyond, 0.0))

    def prefill(self, cases: Sequence[Case]) -> Prefill:
        """TTFT with the largest image and with a text of equally many tokens, measured in turns.

        Raises:
            PreconditionError: the server reports no token counts, or no text of that length was
                found.
        """
        image = max(cases, key=self.image_tokens)
        tokens = self.prompt_tokens(image)
        text = self._text_of(tokens)
        text_tokens = tokens - self.image_tokens(image)
        timings: list[Timing] = []
        # One token is too short to judge, so a separate client keeps it from the judge.
        with self.client.disposable() as client:

            def first_token(case: Case, scale: float = 1.0) -> Timing:
                timings.append(self.time(client, self.uncached.case(case, scale), max_tokens=1))
                return timings[-1]

            pairs, counted = metrics.measure(
                self.client.endpoint,
                lambda: _in_turns(
                    lambda: first_token(image).ttft_seconds, lambda: first_token(text).ttft_seconds
                ),
            )
            requests = _load(timings, (), counted)
            scaled = [
                first_token(image, scale) for scale in _SCALES for _ in range(_ROUNDS_PER_SCALE)
            ]
        return Prefill(
            median_ratio(pairs),
            tokens,
            Metric("image.prefill.median", statistics.median(a - b for a, b in pairs), "s"),
            [
                ((one.prompt_tokens or text_tokens) - text_tokens, one.ttft_seconds)
                for one in scaled
            ],
            self.with_wire(requests, [image]),
        )

    def in_turns_with(self, other: Client, cases: Sequence[Case]) -> list[tuple[Timing, Timing]]:
        """The timings of pairs of equal requests to this endpoint and another one, in turns.

        Args:
            other: the client of the other endpoint.
            cases: the cases of the requests.
        """
        here: list[Timing] = []
        there: list[Timing] = []
        in_turn = itertools.cycle(cases)
        for turn in range(PAIRS):
            case = self.uncached.case(next(in_turn))
            sides = [(here, self.client), (there, other)]
            for timings, client in sides if turn % 2 else reversed(sides):
                timings.append(self.time(client, case))
        return list(zip(here, there, strict=True))

    def image_tokens(self, case: Case) -> int:
        """The number of image tokens in a case's prompt.

        Raises:
            PreconditionError: the server does not report the length of a prompt.
        """
        if case.id not in self._image_tokens:
            whole = self.prompt_tokens(case)
            self._image_tokens[case.id] = whole - self.prompt_tokens(case.without_media())
        return self._image_tokens[case.id]

    def prompt_tokens(self, case: Case) -> int:
        """The number of tokens of a case's prompt.

        Raises:
            PreconditionError: the server does not report it.
        """
        tokens = self.client.prompt_tokens(case)
        if tokens is None:
            raise PreconditionError("the server does not report usage.prompt_tokens")
        return tokens

    def _text_of(self, tokens: int) -> Case:
        """A text case whose prompt has about N tokens."""

        def prompt_of(words: Sequence[str]) -> Case:
            return Case("text/prefill", Capability.TEXT, " ".join(words), max_tokens=1)

        return prompt_of(words_of(tokens, lambda words: self.prompt_tokens(prompt_of(words))))


def timed_cases(session: ModelSession, kind: str) -> tuple[Case, ...]:
    """The cases of a kind, "text" or "image", whose requests are timed: those of one message."""
    return tuple(case for case in session.cases(Cases(kind)) if not case.earlier)


def _load(timings: Sequence[Timing], errors: Sequence[str], counted: Measured) -> Load:
    """The measurements of requests that were sent one at a time."""
    # The wall time would include making the next request's images, so the latencies are added.
    seconds = sum(timing.seconds for timing in timings)
    return Load(
        "one request at a time",
        1,
        seconds,
        tuple(timings),
        tuple(errors),
        server_seconds=counted.seconds,
        server_requests=counted.requests,
    )


def _in_turns(a: Callable[[], float], b: Callable[[], float]) -> list[tuple[float, float]]:
    """Pairs of two measurements (a, b); the order within a pair alternates."""
    pairs = []
    a(), b()  # warm-up
    for turn in range(PAIRS):
        if turn % 2:
            first, second = a(), b()
        else:
            second, first = b(), a()
        pairs.append((first, second))
    return pairs


def timing_of(answer: Completion) -> Timing:
    """The timing of a streamed answer.

    Raises:
        ServerError: the stream contained no token, or no usage.
    """
    if answer.first_token_seconds is None or answer.usage is None:
        raise ServerError(f"{answer.case_id}: the stream contained no token, or no usage")
    return Timing(
        answer.case_id,
        answer.text,
        answer.usage.prompt_tokens,
        answer.usage.completion_tokens,
        answer.first_token_seconds,
        answer.seconds,
    )
