"""Control characters: a log, and a model's answer, may contain commands for a terminal."""

from __future__ import annotations

import re

# Those of Unicode except tab and newline, and those that change the direction of the text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # ECMA-48, 5.4: control sequences


def with_visible_controls(text: str) -> str:
    r"""A text of several lines with its control characters as escapes: `\x1b`.

    Tab and newline stay.
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def printable(text: str) -> str:
    r"""A text with every character that cannot be printed as an escape, newlines as `\n`."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def without_terminal_codes(text: str) -> str:
    """A text without the codes that colour it or move the cursor."""
    return _TERMINAL_CODES.sub("", text)
