"""An open prompt, for which every model has many likely answers, and one of unusual characters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from ..spec.case import Capability, Case

OPEN = Case(
    "text/open", Capability.TEXT, "Write a short poem about a colour of your choice.", max_tokens=32
)

# The text of each line is in Unicode's form NFC, which most tokenizers make of any text. It begins
# and ends without a blank, because some chat templates trim a message.
UNUSUAL = Case(
    "text/unusual",
    Capability.TEXT,
    "Which of these lines do you like?\n"
    "第１行：（Ａ＆Ｂ）、１２３％\u3000→ ½ ① ﬁ\n"
    'if a < b && c > "d": it\'s &amp; or &lt;\n'
    "\n"
    "\tA tab, two  blanks, a no-break\u00a0space\n"
    "naïve café — “quotes” …\n"
    "☺\ufe0f 👩\u200d💻 🇨🇳\n"
    "The end.",
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
