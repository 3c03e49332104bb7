"""Searches with hypothesis for the smallest picture that gets a wrong reply."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..criteria.pictures import reply_problem
from ..observation.answers import Completion, Refusal
from ..observation.pictures import PictureReply, PictureSearch
from ..spec.picture import MODES, Picture
from ..spec.thresholds import SHRINK_REQUESTS, SHRINK_SECONDS
from .drawing import settings, uniform

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_LONGEST_SIDE = 1024  # a longer one is drawn only for a thin picture
_MOST_PIXELS = 1 << 19  # about 650 tokens, which take half a second on two CPU cores
_ASPECT_LIMIT = 200  # the processors of Qwen-VL and GLM refuse thinner pictures
_REPORTED = ((26, 28), (500, 19), (150, 150))  # servers were reported to fail on these


def search(
    ask: Callable[[Picture], PictureReply],
    ask_unchanged: Callable[[], Completion | Refusal],
    patch_sides: tuple[int, int],
    examples: int,
) -> PictureSearch:
    """Asks pictures until one gets a wrong reply, then looks for the smallest such picture.

    First come the pictures at the borders of the processor, then generated ones, the same in every
    run. Each is asked once. The search for a smaller one ends after `SHRINK_REQUESTS` requests or
    `SHRINK_SECONDS`, or as soon as a request gets no reply.

    Args:
        ask: sends a picture.
        ask_unchanged: sends a good request, after all pictures.
        patch_sides: sides in pixels at whose multiples a picture gets more tokens.
        examples: number of generated pictures.
    """
    import hypothesis

    replies = _Replies(ask)
    borders_are_right = not any(map(replies.is_wrong, border_pictures(patch_sides)))

    @settings(
        # After a wrong reply the generated pictures are candidates for a smaller one.
        max_examples=examples if borders_are_right else SHRINK_REQUESTS,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(generated_pictures(patch_sides))
    def each_picture_gets_the_right_reply(picture: Picture) -> None:
        if replies.is_wrong(picture):
            raise _WrongReplyError

    with contextlib.suppress(_WrongReplyError):
        each_picture_gets_the_right_reply()
    return PictureSearch(
        replies=tuple(replies.generated),
        smallest=min(replies.wrong, key=_size, default=None),
        shrinking=replies.shrinking,
        afterwards=ask_unchanged(),
    )


def border_pictures(patch_sides: tuple[int, int]) -> tuple[Picture, ...]:
    """The first pictures of every search: reported sizes, squares, the thinnest, every mode."""
    patch, unit = patch_sides
    thin = [(unit, unit * _ASPECT_LIMIT + more) for more in (0, 1) if unit < patch * 4]
    sides = (1, patch - 1, unit, 4 * unit, 4 * unit + 1)
    squares = [(side, side) for side in sides if side <= _LONGEST_SIDE]
    sizes = [*_REPORTED, *squares, *thin, *((long, short) for short, long in thin)]
    modes = [Picture(2 * unit + 1, unit + 1, mode) for mode in MODES]
    return (*(Picture(*size) for size in sizes), *modes)


def generated_pictures(patch_sides: tuple[int, int]) -> SearchStrategy[Picture]:
    """Pictures of all sizes and modes; those at a border of the processor are more frequent."""
    from hypothesis import strategies

    sides = _sides(patch_sides)

    def with_side(side: int) -> SearchStrategy[Picture]:
        partner = uniform(_partners(side, sides))
        # Three bits and not a number: hypothesis also tries the same number in several places,
        # and a mode's would be that of a very small side.
        bits = strategies.tuples(*3 * [strategies.booleans()])
        return strategies.builds(partial(_picture, side), partner, strategies.booleans(), bits)

    return uniform(sides).flatmap(with_side)


class _WrongReplyError(Exception):
    """Tells hypothesis that a picture gets a wrong reply."""


class _Replies:
    """Asks each picture once, within the limits of the search for a smaller one.

    Attributes:
        generated: the replies up to the first wrong one.
        wrong: the wrong replies.
        shrinking: number of requests after the first wrong reply.
    """

    def __init__(self, ask: Callable[[Picture], PictureReply]) -> None:
        self.generated: list[PictureReply] = []
        self.wrong: list[PictureReply] = []
        self.shrinking = 0
        self._ask = ask
        self._known: dict[Picture, bool] = {}
        self._until = 0.0

    def is_wrong(self, picture: Picture) -> bool:
        """True if a picture gets a wrong reply; False if it may not be asked any more."""
        if picture not in self._known and self._may_ask():
            self._known[picture] = self._is_wrong(self._ask(picture))
        return self._known.get(picture, False)

    def _is_wrong(self, reply: PictureReply) -> bool:
        is_wrong = reply_problem(reply) is not None
        if self.wrong:
            self.shrinking += 1
        else:
            self.generated.append(reply)
        if is_wrong:
            self._until = self._until or time.monotonic() + SHRINK_SECONDS
            self.wrong.append(reply)
        return is_wrong

    def _may_ask(self) -> bool:
        if not self.wrong:
            return True
        last = self.wrong[-1].got
        is_lost = isinstance(last, Refusal) and last.status == 0
        in_time = self.shrinking < SHRINK_REQUESTS and time.monotonic() < self._until
        return in_time and not is_lost


def _sides(patch_sides: tuple[int, int]) -> list[int]:
    """Sides in ascending order, so that a picture shrinks; the more often, the likelier."""
    patch, unit = patch_sides
    multiples = [unit * number for number in (1, 2, 3, 4, 8, 12, 16, 24, 32)]
    powers = [1 << number for number in range(11)]
    borders = [1, patch, *multiples, *powers]
    near = [border + offset for border in borders for offset in (-1, 0, 1)]
    every = range(1, _LONGEST_SIDE + 1)
    return sorted(side for side in (*8 * near, *every) if side in every)


def _partners(side: int, sides: Sequence[int]) -> list[int]:
    """The sides that a picture with one given side may have, as in `_sides`."""
    at_limit = [side * _ASPECT_LIMIT + offset for offset in (-1, 0, 1)]
    likely = 100 * [side, *at_limit]
    return sorted(one for one in (*likely, *sides) if one * side <= _MOST_PIXELS)


def _picture(side: int, partner: int, is_wide: bool, mode: tuple[bool, ...]) -> Picture:
    width, height = (partner, side) if is_wide else (side, partner)
    number = sum(bit << place for place, bit in enumerate(mode))
    return Picture(width, height, MODES[number])


def _size(reply: PictureReply) -> tuple[int, int]:
    picture = reply.picture
    return picture.width * picture.height, MODES.index(picture.mode)
