"""Writes token ids as text in which runs are short: `257 10 261*140 258`.

The prompt of a page has a thousand equal image tokens; a list of them would hide the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def to_text(token_ids: Sequence[int]) -> str:
    """Token ids as text; N equal ones in a row are `<id>*<N>`."""
    runs = ((token, len(list(group))) for token, group in itertools.groupby(token_ids))
    return " ".join(f"{token}*{count}" if count > 1 else str(token) for token, count in runs)


def from_text(text: str) -> tuple[int, ...]:
    """The token ids of a text made by `to_text`.

    Raises:
        ValueError: the text has another form.
    """
    token_ids: list[int] = []
    for run in text.split():
        token, _, count = run.partition("*")
        token_ids += [int(token)] * int(count or 1)
    return tuple(token_ids)
