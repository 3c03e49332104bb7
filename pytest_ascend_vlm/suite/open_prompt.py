"""An open prompt, for which every model has many likely answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from ..spec.case import Capability, Case

OPEN = Case(
    "text/open", Capability.TEXT, "Write a short poem about a colour of your choice.", max_tokens=32
)


def open_cases(cases: Iterable[Case]) -> list[Case]:
    """The open prompt as a text and with the first image, as far as the cases have them."""
    return [
        dataclasses.replace(
            OPEN, id=f"{case.group}/open", needs=case.needs, images=case.every_image
        )
        for case in text_and_image(cases, lambda _: True)
    ]


def text_and_image(cases: Iterable[Case], is_suited: Callable[[Case], bool]) -> list[Case]:
    """The first suited case without an image and the first with one, as far as there are any."""
    kinds = [[case for case in cases if bool(case.every_image) is kind] for kind in (False, True)]
    return [found for of in kinds if (found := next(filter(is_suited, of), None)) is not None]
