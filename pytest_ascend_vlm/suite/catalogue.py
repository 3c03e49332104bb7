"""The suite's criteria as a list, and as the page `docs/criteria.md`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from .conformance import VLMConformance
from .criterion import Criterion, Documentation, documentation

_HEAD = """\
# Criteria

Printed by `ascend-vlm criteria` from the docstrings of the tests; the same text explains a failure.
Each criterion is a test of every class that subclasses `VLMConformance`.
"""


def criteria() -> Iterator[tuple[Criterion, Documentation, Callable[..., Any]]]:
    """Every criterion of the suite with its documentation and test, in the order they run."""
    for base in reversed(VLMConformance.__mro__):
        for test in vars(base).values():
            for marker in getattr(test, "pytestmark", []):
                if marker.name == "vlm_criterion":
                    yield marker.args[0], documentation(test), test


def markdown() -> str:
    """The page that documents every criterion."""
    parts = [_HEAD]
    for what, text, test in criteria():
        markers = sorted({m.name for m in test.pytestmark} - {"vlm_criterion", "parametrize"})  # type: ignore[attr-defined]
        needs = f"needs `{what.needs.value}`; " if what.needs.value != "text" else ""
        parts.append(
            f"## {what.id}\n\n*{needs}markers: {', '.join(f'`{name}`' for name in markers)}*\n\n"
            f"{inspect.cleandoc(text.text)}\n\n**If this fails:** {text.if_this_fails}\n"
        )
    return "\n".join(parts).rstrip("\n")
