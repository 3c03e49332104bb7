"""The keys of `additional_config` that vllm-ascend reads.

vllm-ascend has no schema of them, and ignores a key that it does not know. Therefore its source is
searched for the places where it reads one, without importing it. Keys inside a key's own mapping
are not checked: some releases accept any there.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

_NAME = "additional_config"
_READERS = {"get", "pop", "setdefault"}


def unread_keys(config: object, known: Collection[str]) -> list[str]:
    """The keys of an additional_config that are not read; none if no key is known."""
    if not known or not isinstance(config, Mapping):
        return []
    return [str(key) for key in config if key not in known]


@cache
def known_keys() -> tuple[str, ...]:
    """The keys that the installed vllm-ascend reads; none if it is not installed."""
    return tuple(sorted(set(_keys())))


def _keys() -> Iterator[str]:
    spec = importlib.util.find_spec("vllm_ascend")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(root).rglob("*.py"):
            source = path.read_bytes()
            if _NAME.encode() in source:
                for node in ast.walk(ast.parse(source)):
                    yield from _texts(_read_by(node))


def _read_by(node: ast.AST) -> Iterable[ast.expr]:
    """The expressions with which a node reads additional_config, if it does."""
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in _READERS:
            return node.args[:1] if _is_config(function.value) else ()
        # A function that reads the key it is given: _get_config_value(additional_config, "key").
        return node.args[1:2] if node.args and _is_config(node.args[0]) else ()
    if isinstance(node, ast.Subscript) and _is_config(node.value):
        return (node.slice,)
    if isinstance(node, ast.Compare) and any(map(_is_config, node.comparators)):
        return (node.left,)
    return ()


def _is_config(node: ast.expr) -> bool:
    """True for `additional_config`, `x.additional_config` and `(x.additional_config or {})`."""
    if isinstance(node, ast.BoolOp):
        return any(map(_is_config, node.values))
    return getattr(node, "id", None) == _NAME or getattr(node, "attr", None) == _NAME


def _texts(nodes: Iterable[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
