"""The requests that have a row of their own, besides their part in serving.any_request.

They are those that a release of vLLM is known to get wrong, and those that a model file names: an
`ExpectedFailure("serving.bad_input[min_p-negative]", ...)` gives serving.bad_input this row.
"""

from __future__ import annotations

from collections.abc import Sequence

from .model import ExpectedFailure
from .step import ENDINGS, GOOD, chat, single_steps

BAD_INPUT = "serving.bad_input"
ODD_INPUT = "serving.odd_input"

REQUEST_ROWS = {
    BAD_INPUT: (
        "not-an-image",
        "truncated-image",
        "decompression-bomb",
        "gigapixel-image",
        "unreachable-url",
        "data-without-base64",
        "unknown-model",
        "too-long-prompt",
        "n-huge",
        "bad_words-empty",
        "completion-of-negative-token",
        "broken-embedding",
        "broken-json",
        "json-list",
        "json-null",
        "no-messages",
    ),
    ODD_INPUT: ("image-tokens-in-text", "image-and-image-tokens"),
}
"""Criterion -> names of the requests (see `step.py`) that it asks of every model."""


def rows_of(criterion: str, failures: Sequence[ExpectedFailure]) -> tuple[str, ...]:
    """The names of the requests that a criterion asks of a model.

    A declared name that is none of `request_names` is an error at the end of the collection.

    Args:
        criterion: a key of `REQUEST_ROWS`.
        failures: the expected failures of the model.
    """
    declared = (one.case for one in failures if one.criterion == f"{criterion}[{one.case}]")
    return tuple(dict.fromkeys((*REQUEST_ROWS[criterion], *declared)))


def request_names() -> tuple[str, ...]:
    """The names of all requests that a row can have: a good one is no bad or odd input."""
    good = {chat(message, "", ending).name for message in GOOD for ending in ENDINGS}
    return tuple(step.name for step in single_steps() if step.name not in good)
