"""The fields of a case in `cases.json`, and the check of an entry."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .case import Capability

_CAPABILITIES = tuple(one.value for one in Capability)
_ROLES = ("system", "user", "assistant")
# An id becomes a path below golden/, so no part of it begins with a full stop.
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_REQUIRED = ("id", "needs", "prompt")
_MAY_BE_NULL = frozenset({"truth", "box", "full_only"})


def problem_of(entry: Mapping[str, Any]) -> str | None:
    """Reason why an entry of `cases.json` is no case, or None."""
    for name in entry:
        if name not in _FIELDS:
            return f"there is no field {name!r}. The fields are {', '.join(_FIELDS)}."
    for name in _REQUIRED:
        if name not in entry:
            return f"the field {name!r} is missing. Write {_FIELDS[name].wanted}."
    for name, value in entry.items():
        may_be = value is None and name in _MAY_BE_NULL
        if not may_be and not _FIELDS[name].accepts(value):
            return f"the field {name!r} is {value!r:.80}. Write {_FIELDS[name].wanted}."
    return None


@dataclass(frozen=True)
class _Field:
    """A field of a case.

    Attributes:
        wanted: description of its values, for messages.
        accepts: True if a value is one of them.
    """

    wanted: str
    accepts: Callable[[Any], bool]


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_message, value))


def _is_message(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"role", "content"}:
        return False
    content = value["content"]
    return value["role"] in _ROLES and isinstance(content, list) and all(map(_is_part, content))


def _is_part(value: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() == {"image"} and _is_text(value["image"])
    return isinstance(value, str)


def _is_box(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        return False
    left, top, right, bottom = value
    return bool(0 <= left < right < math.inf and 0 <= top < bottom < math.inf)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_FIELDS = {
    "id": _Field(
        "<group>/<name> of letters, digits, '_', '-' and '.', such as text/capital", _is_id
    ),
    "needs": _Field(f"one of {', '.join(_CAPABILITIES)}", lambda value: value in _CAPABILITIES),
    "prompt": _Field("a text", lambda value: isinstance(value, str)),
    "images": _Field('a list of file names, such as ["page.png"]', _are_texts),
    "videos": _Field('a list of file names, such as ["clip.mp4"]', _are_texts),
    "earlier": _Field(
        'a list of messages, such as {"role": "user", "content": ["Read.", {"image": "page.png"}]}',
        _are_messages,
    ),
    "truth": _Field("the exact text of the page", _is_text),
    "truth_file": _Field("the name of a text file", _is_text),
    "accepted": _Field('a list of texts, such as ["blue", "蓝色"]', _are_texts),
    "box": _Field(
        "[left, top, right, bottom] in pixels, with left < right and top < bottom", _is_box
    ),
    "max_tokens": _Field("a whole number of at least 1", _is_count),
    "full_only": _Field("the reason as a text", _is_text),
}
