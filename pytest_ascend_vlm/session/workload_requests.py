"""Makes the requests of a workload: texts and pages of a stated number of tokens, in no cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..criteria.performance import LoadExpectations
from ..errors import PreconditionError
from ..spec.case import Capability, Case
from ..spec.case_files import image_size
from ..spec.thresholds import TOKENS_TOLERANCE
from ..spec.workload import Workload
from .memo import Memo
from .random_words import words_of
from .request_timing import RequestTimer

_TRIES = 8
_LARGEST_PIXELS = 2**24


class WorkloadRequests:
    """The requests of the workloads of one model, each made once."""

    def __init__(
        self, timer: RequestTimer, pages: Callable[[], Sequence[Case]], *, is_tiny: bool
    ) -> None:
        """Makes nothing yet.

        Args:
            timer: counts tokens on the served model, and makes variants that no cache contains.
            pages: the cases whose images are scaled.
            is_tiny: True for a tiny checkpoint. Its image processor may allow smaller images only,
                so it gets the nearest size.
        """
        self._timer = timer
        self._pages = pages
        self._is_tiny = is_tiny
        self._made: dict[str, Memo[tuple[tuple[Case, ...], LoadExpectations]]] = {}

    def of(self, workload: Workload) -> tuple[tuple[Case, ...], LoadExpectations]:
        """The requests in the order in which they are sent, and what is known about them.

        Raises:
            PreconditionError: the server reports no token counts, or no request has the stated
                number of tokens.
        """
        if workload.name not in self._made:
            self._made[workload.name] = Memo(lambda: self._make(workload))
        return self._made[workload.name]()

    def _make(self, workload: Workload) -> tuple[tuple[Case, ...], LoadExpectations]:
        variants: list[Iterator[Case]] = []
        image_tokens: dict[str, int] = {}
        if workload.input_tokens is not None:
            variants.append(self._texts(workload.input_tokens))
        if workload.image_tokens is not None:
            scale, found = self._scale(workload.image_tokens)
            variants.append(self._variants_of_page(scale))
            image_tokens = {_PAGE: found}
        cases = tuple(
            replace(next(variants[index % len(variants)]), max_tokens=workload.output_tokens)
            for index in range(workload.requests)
        )
        most = {case.id: case.max_tokens for case in cases}
        return cases, LoadExpectations(most, image_tokens, exact=True)

    def _texts(self, tokens: int) -> Iterator[Case]:
        """Endless texts of as many tokens: the same words in random orders."""
        first, *others = words_of(tokens, lambda words: self._timer.prompt_tokens(_text(words)))
        # The first word stays, because a word has other tokens without a space before it.
        draw = np.random.default_rng(0)
        while True:
            yield _text([first, *map(str, draw.permutation(others))])

    def _variants_of_page(self, scale: float) -> Iterator[Case]:
        page = self._page()
        while True:
            yield self._timer.uncached.case(page, scale)

    def _page(self) -> Case:
        return replace(max(self._pages(), key=self._timer.image_tokens), id=_PAGE)

    def _scale(self, tokens: int) -> tuple[float, int]:
        """The scale of the page at which it has about as many image tokens, and their number."""
        page, scale = self._page(), 1.0
        of_text = self._timer.prompt_tokens(page.without_media())
        largest = math.sqrt(_LARGEST_PIXELS / math.prod(image_size(page.images[0])))
        found: dict[int, float] = {}
        for _ in range(_TRIES):
            scaled = self._timer.uncached.case(page, scale)
            count = self._timer.prompt_tokens(scaled) - of_text
            found[count] = scale
            scale *= math.sqrt(tokens / max(count, 1))
            if abs(count - tokens) <= TOKENS_TOLERANCE * tokens or scale > largest:
                break
        nearest = min(found, key=lambda count: abs(count - tokens))
        if abs(nearest - tokens) > TOKENS_TOLERANCE * tokens and not self._is_tiny:
            counts = ", ".join(map(str, sorted(found)))
            raise PreconditionError(
                f"no size of the page has {tokens} image tokens to {TOKENS_TOLERANCE:.0%}; its "
                f"sizes have {counts}. Declare a number that the model's image processor gives."
            )
        return found[nearest], nearest


_PAGE = "workload/page"


def _text(words: Sequence[str]) -> Case:
    return Case("workload/text", Capability.TEXT, " ".join(words))
