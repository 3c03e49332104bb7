"""Runs a user's own test that is marked `determinism` several times and compares its answers."""

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
        True if the test was run here, None if pytest has to run it.

    Raises:
        ConfigurationError: the marker asks for fewer than two runs, or the test returned no
            completion.
        CriterionFailed: a run returned a different text.
    """
    marker = item.get_closest_marker("determinism")
    if marker is None or call_of(item).criterion is not None:
        return None
    runs = marker.kwargs.get("runs", marker.args[0] if marker.args else REPEATS)
    if runs < 2:
        raise ConfigurationError(
            f"{item.nodeid}: determinism(runs={runs}) compares nothing; use at least 2 runs."
        )
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    texts = [_text(item.obj(**arguments), item) for _ in range(runs)]
    for index, text in enumerate(texts[1:], start=2):
        if text != texts[0]:
            lines = "\n  ".join(side_by_side(texts[0], text, "run 1"))
            raise CriterionFailed(f"run {index} of {runs} differs from the first:\n  {lines}")
    return True


def _text(returned: Any, item: pytest.Function) -> str:
    """The text of a test's return value: a string, a `Completion`, or an openai completion."""
    if isinstance(returned, str):
        return returned
    if hasattr(returned, "text"):
        return str(returned.text)
    if getattr(returned, "choices", None):
        return str(returned.choices[0].message.content)
    raise ConfigurationError(
        f"{item.nodeid} is marked determinism, so it must return the completion to compare: "
        f"a string, a completion of `client`, or one of the openai library; got {returned!r}."
    )
