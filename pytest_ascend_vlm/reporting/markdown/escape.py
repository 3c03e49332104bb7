"""Makes any text harmless in Markdown: a model's answer may contain markup."""

from __future__ import annotations

import html
import re
from typing import Any

from ...control_characters import with_visible_controls


def cell(value: Any) -> str:
    """A text as the content of a Markdown table cell or line, with its markup escaped."""
    flat = with_visible_controls(" ".join(str(value).split()))
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(flat, quote=False))


def code_block(text: Any, language: str = "text") -> str:
    """A text as a fenced code block; the fence is longer than any fence in the text.

    Args:
        text: the text.
        language: the name of its language, for colours.
    """
    content = with_visible_controls(str(text))
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content}\n{fence}"


def short(text: Any, length: int = 60) -> str:
    """A text in one line, cut at a length."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
