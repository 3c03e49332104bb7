"""Checks the fields of a declaration against their annotations."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigurationError


def require_types(declared: Any) -> None:
    """Checks every field of a dataclass, and what is in its mappings and tuples.

    An integer is a float as well; True is neither.

    Raises:
        ConfigurationError: a field has a value of another type. The message names the object by its
            class and its first field.
    """
    first, *_ = fields = dataclasses.fields(declared)
    hints = get_type_hints(type(declared))
    for field in fields:
        for problem in _misfits(field.name, getattr(declared, field.name), hints[field.name]):
            named = reprlib.repr(getattr(declared, first.name))
            raise ConfigurationError(f"{type(declared).__name__}({named}): {problem}")


def _misfits(name: str, value: object, hint: Any) -> Iterator[str]:
    """What does not fit an annotation: the value itself, or what is in it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        fitting = [one for one in arguments if _is_of(value, one)]
        yield from _misfits(name, value, fitting[0]) if fitting else [_told(name, value, hint)]
    elif not _is_of(value, hint):
        yield _told(name, value, hint)
    elif origin and isinstance(value, Mapping):
        of_key, of_item = arguments
        for key, item in value.items():
            yield from _misfits(f"a key of {name}", key, of_key)
            yield from _misfits(f"{name}[{key!r}]", item, of_item)
    elif origin and isinstance(value, Iterable):
        for number, item in enumerate(value):
            yield from _misfits(f"{name}[{number}]", item, arguments[0])


def _is_of(value: object, hint: Any) -> bool:
    """True if a value itself, whatever is in it, fits an annotation that is no union."""
    if hint is Any:
        return True
    kind = get_origin(hint) or hint
    if kind in {int, float} and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _told(name: str, value: object, hint: Any) -> str:
    is_one = get_origin(hint) is tuple and _is_of(value, get_args(hint)[0])
    comma = f" Write {name}=(…,), with a comma." if is_one else ""
    return f"{name} is {reprlib.repr(value)}, and not of the type {_name(hint)}.{comma}"


def _name(hint: Any) -> str:
    """An annotation as a model file would write it."""
    if hint in {Any, NoneType, ...}:
        return {Any: "Any", NoneType: "None", ...: "..."}[hint]
    origin, arguments = get_origin(hint), [_name(one) for one in get_args(hint)]
    if origin in {Union, UnionType}:
        return " | ".join(arguments)
    return f"{origin.__name__}[{', '.join(arguments)}]" if origin else str(hint.__name__)
