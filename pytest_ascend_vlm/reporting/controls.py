"""Makes control characters visible: a model's answer may contain commands for a terminal."""

from __future__ import annotations

import re

# Those of Unicode except tab and newline, and those that change the direction of the text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def with_visible_controls(text: str) -> str:
    r"""A text with its control characters as escapes: `\x1b`; tab and newline stay."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
