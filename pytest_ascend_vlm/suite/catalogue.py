"""Prints the page `docs/criteria.md` from the docstrings of the suite."""

from __future__ import annotations

import inspect

from ..criteria.criterion import criteria, documentation
from ..criteria.groups import MARKER
from ..spec.thresholds import table
from .conformance import VLMConformance

_HEAD = """\
# Criteria

`ascend-vlm criteria` prints this page from the docstrings of the tests. A failure shows the same
text. Each criterion is a test of every class that subclasses `VLMConformance`.
"""
_THRESHOLDS = """\
## Thresholds

These are the project's defaults. `ModelSpec(thresholds=Thresholds(...))` changes them for a model.
A looser threshold needs `because="..."`, and every report repeats that reason.
"""


def markdown() -> str:
    """The page that documents every criterion and every threshold."""
    parts = [_HEAD]
    for criterion, test in criteria(VLMConformance):
        text = documentation(test)
        marks = {mark.name for mark in test.pytestmark} - {MARKER, "parametrize"}  # type: ignore[attr-defined]
        needs = f"needs `{criterion.needs.value}`; " if criterion.needs.value != "text" else ""
        parts.append(
            f"## {criterion.id}\n\n"
            f"*{needs}markers: {', '.join(f'`{name}`' for name in sorted(marks))}*\n\n"
            f"{inspect.cleandoc(text.text)}\n\n**If this fails:** {text.if_this_fails}\n"
        )
    return "\n".join([*parts, _THRESHOLDS, *table()])
