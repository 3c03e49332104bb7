"""A text of ours with its values, before it is translated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Phrase:
    """A text of the project that a renderer translates; what a model or a user says is a `str`.

    Attributes:
        text: the English text, which is also the key of its translation; `{name}` is the place of
            a value, with a format if one is needed (`{name:.2f}`).
        values: name -> value; a value that is a phrase is translated as well.
    """

    text: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def of(self, **values: Any) -> Phrase:
        """The same phrase with these values."""
        return replace(self, values=values)


Text = Phrase | str
"""A text in the view: a phrase is translated, a string is shown as it is."""


def phrase(text: str, **values: Any) -> Phrase:
    """A phrase with its values by name; the text is a literal, so that a test finds it."""
    return Phrase(text, values)


def listed(*parts: Text) -> Text | None:
    """The parts, separated by commas; None without a part."""
    joined: Text | None = None
    for part in parts:
        joined = part if joined is None else phrase("{first}, {next}", first=joined, next=part)
    return joined
