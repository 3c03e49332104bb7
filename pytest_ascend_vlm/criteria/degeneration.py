"""The guard every response of every test passes: is this an answer at all?

Broken kernels rarely crash. They answer `!!!!!!!!`, repeat one phrase until the length limit, or
return nothing; and a throughput measured on that looks excellent.
"""

from __future__ import annotations

import re

from ..observation.answers import Completion, TopLogprobs

_SHORTEST_RUN = 16
_LEAST_REPEATS = 6
_LONGEST_PHRASE = 64
_LEAST_SHARE = 0.5


def degeneration(completion: Completion, reference_text: str | None = None) -> str | None:
    """What is degenerate about an answer, or None.

    Args:
        completion: the answer.
        reference_text: what the reference engine answered; a run or loop that the reference shows
            too is the model's own and is excused.
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
    """One punctuation mark 16 times or more, described; `!!!!!!!!` is what token 0 looks like.

    Rules and leaders (`-_=.*#…`) are common in documents and do not count.
    """
    run = re.search(rf"([^\w\s\-=.*#·—…|])\1{{{_SHORTEST_RUN - 1},}}", text)
    return f"a run of {len(run[0])} times {run[1]!r}" if run else None


def _loop(text: str) -> str | None:
    """A phrase repeated at the end, 6 times or more and making up half of the text, described."""
    for size in range(1, min(_LONGEST_PHRASE, len(text) // _LEAST_REPEATS) + 1):
        repeats = _repeats_at_end(text, size)
        if repeats >= _LEAST_REPEATS and repeats * size >= _LEAST_SHARE * len(text):
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
