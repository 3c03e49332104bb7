"""The degeneration guard, which checks every answer in every test.

A broken kernel rarely crashes. The engine returns `!!!!!!!!`, repeats one phrase until the length
limit, or returns an empty text. The throughput measured on such answers looks excellent.
"""

from __future__ import annotations

import re

from ..observation.answers import Completion, TopLogprobs

_MIN_RUN = 16  # equal marks in a row
_MIN_REPEATS = 6  # of a phrase at the end of the answer
_MAX_PHRASE = 64  # characters
_MIN_SHARE = 0.5  # of the answer's characters


def degeneration(completion: Completion, reference_text: str | None = None) -> str | None:
    """Describes how an answer is degenerate, or returns None.

    Args:
        completion: the answer.
        reference_text: the reference's answer. If it has a run or a loop too, the model itself
            produces them, and they are excused.
    """
    if completion.top is not None and _has_nan(completion.top):
        return "a log-probability is NaN"
    if not completion.text.strip():
        return "the answer is empty"
    if reference_text is not None and (_run(reference_text) or _loop(reference_text)):
        return None
    cut_off = completion.finish_reason == "length"
    return _run(completion.text) or (_loop(completion.text) if cut_off else None)


def _run(text: str) -> str | None:
    """Describes a punctuation mark that is repeated, or returns None.

    `!!!!!!!!` is token 0 in many tokenizers. Rulers and dot leaders (`-_=.*#…`) are common in
    documents and do not count.
    """
    run = re.search(rf"([^\w\s\-=.*#·—…|])\1{{{_MIN_RUN - 1},}}", text)
    return f"a run of {len(run[0])} times {run[1]!r}" if run else None


def _loop(text: str) -> str | None:
    """Describes a phrase that is repeated at the end, or returns None."""
    for size in range(1, min(_MAX_PHRASE, len(text) // _MIN_REPEATS) + 1):
        repeats = _repeats_at_end(text, size)
        if repeats >= _MIN_REPEATS and repeats * size >= _MIN_SHARE * len(text):
            return f"{text[-size:]!r} repeated {repeats} times, until the length limit"
    return None


def _repeats_at_end(text: str, size: int) -> int:
    phrase, end = text[-size:], len(text)
    while end >= size and text[end - size : end] == phrase:
        end -= size
    return (len(text) - end) // size


def _has_nan(top: TopLogprobs) -> bool:
    import numpy as np

    return bool(np.isnan(top.logprobs[top.token_ids >= 0]).any())
