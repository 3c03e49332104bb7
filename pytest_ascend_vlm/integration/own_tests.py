"""A user's own test that is marked `determinism`: run several times, its answers compared."""

from __future__ import annotations

from typing import Any

import pytest

from ..criteria.text import side_by_side
from ..errors import ConfigurationError, CriterionFailed
from ..spec.thresholds import REPEATS
from .criterion_call import call_of


def repeat_if_marked(item: pytest.Function) -> object | None:
    """Runs a user's own test marked `determinism` several times and compares what it returns.

    Returns:
        True if the test was run here, None if pytest is to run it.
    """
    marker = item.get_closest_marker("determinism")
    if marker is None or call_of(item).criterion is not None:
        return None
    runs = marker.kwargs.get("runs", marker.args[0] if marker.args else REPEATS)
    if runs < 2:
        raise ConfigurationError(f"{item.nodeid}: determinism(runs={runs}) compares nothing.")
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    texts = [_text(item.obj(**arguments), item) for _ in range(runs)]
    for index, text in enumerate(texts[1:], start=2):
        if text != texts[0]:
            lines = "\n  ".join(side_by_side(texts[0], text, "run 1"))
            raise CriterionFailed(f"run {index} of {runs} differs from the first:\n  {lines}")
    return True


def _text(returned: Any, item: pytest.Function) -> str:
    """The text of what a test returned: a string, our Completion, or openai's."""
    if isinstance(returned, str):
        return returned
    if hasattr(returned, "text"):
        return str(returned.text)
    if getattr(returned, "choices", None):
        return str(returned.choices[0].message.content)
    raise ConfigurationError(
        f"{item.nodeid} is marked determinism, so it has to return the completion to compare: "
        f"a string, a completion of `client` or one of the openai library; got {returned!r}."
    )
