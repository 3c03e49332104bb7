"""Differences of what two reports were measured with: platform, versions, weights, serve command.

A report merges only with reports of the same set-up. A comparison names what differs.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ABSENT = "none"
_SHOWN_CHARACTERS = 100
_SHOWN_DIGITS = 16  # of a digest
_NAMES = {"weights_sha256": "digest of the weights", "suite_sha256": "files of the suite"}
_DIGEST = re.compile(r"[0-9a-f]{32,}")

_OF_RUN = ("platform", "checkpoint", "simulated", "device")
_OF_RUN_BY_NAME = ("versions", "serve_overrides")
_IF_KNOWN = ("suite_sha256",)
_OF_MODEL = ("weights_sha256", "revision", "serve_command", "suite_arguments")
_CONDITIONS = "conditions"
"""What only the journal has, of a run and of a class: name -> value or digest."""

_SHARED = ("environment", "unmodified", "cases")
"""Fields of which only the names that both sides know are compared; null is unknown."""


@dataclass(frozen=True)
class Difference:
    """One difference between two reports.

    Attributes:
        field: the field of the receipt or of the model's facts: "versions", "serve_command".
        what: the name of what differs, for a reader: "versions: torch".
        first: its value in the first report, shortened.
        second: its value in the second report, shortened.
        model: id and test class of the model that differs; empty for the whole report.
    """

    field: str
    what: str
    first: str
    second: str
    model: tuple[str, ...] = ()


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """The differences between two reports.

    Facts of a model are compared if both reports have them: a server that never started has none.

    Args:
        first: the content of a report.json.
        second: the content of another.
    """
    found = list(_of_receipts(first["receipt"], second["receipt"]))
    models = {(model["model"], model["suite_class"]): model for model in first["models"]}
    for model in second["models"]:
        key = (model["model"], model["suite_class"])
        if key in models:
            found += _of_models(models[key], model, key)
    return found


def _of_receipts(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Difference]:
    for name in _OF_RUN:
        yield from _differing(name, name, (first[name], second[name]))
    for name in _OF_RUN_BY_NAME:
        yield from _by_name(name, (first.get(name), second.get(name)))
    for name in _IF_KNOWN:
        if name in first and name in second:
            yield from _differing(name, _readable(name), (first[name], second[name]))
    yield from _conditions(first, second)
    yield from _shared(first, second)


def _of_models(
    first: Mapping[str, Any], second: Mapping[str, Any], key: tuple[str, str]
) -> Iterator[Difference]:
    for name in _OF_MODEL:
        if name in first and name in second:
            yield from _differing(name, _readable(name), (first[name], second[name]), key)
    if "env" in first and "env" in second:
        yield from _by_name("env", (first["env"], second["env"]), key)
    yield from _conditions(first, second, key)
    variants = first.get("variants") or {}
    for name, other in (second.get("variants") or {}).items():
        if name in variants:
            commands = (variants[name]["serve_command"], other["serve_command"])
            what = f"serve command of the variant {name}"
            yield from _differing("serve_command", what, commands, key)
    yield from _shared(first, second, key)


def _conditions(
    first: Mapping[str, Any], second: Mapping[str, Any], key: tuple[str, ...] = ()
) -> Iterator[Difference]:
    """The differences of conditions, if both sides have them."""
    if _CONDITIONS in first and _CONDITIONS in second:
        sides = (first[_CONDITIONS], second[_CONDITIONS])
        for found in _by_name(_CONDITIONS, sides, key):
            yield dataclasses.replace(found, what=found.what.removeprefix(f"{_CONDITIONS}: "))


def _by_name(field: str, sides: tuple[Any, Any], key: tuple[str, ...] = ()) -> Iterator[Difference]:
    """The differences of two mappings; a name that one side lacks is a difference."""
    first, second = (side or {} for side in sides)
    for name in dict.fromkeys([*first, *second]):
        pair = (first.get(name, _ABSENT), second.get(name, _ABSENT))
        yield from _differing(field, f"{field}: {name}", pair, key)


def _shared(
    first: Mapping[str, Any], second: Mapping[str, Any], key: tuple[str, ...] = ()
) -> Iterator[Difference]:
    """The differences of names that both sides know."""
    for field in _SHARED:
        ours, others = first.get(field) or {}, second.get(field) or {}
        for name in ours:
            pair = (ours[name], others.get(name))
            if None not in pair:
                yield from _differing(field, f"{field}: {name}", pair, key)


def _differing(
    field: str, what: str, pair: tuple[Any, Any], key: tuple[str, ...] = ()
) -> Iterator[Difference]:
    if pair[0] == pair[1]:
        return
    shown = _arguments(*pair) if field == "serve_command" else (_shown(pair[0]), _shown(pair[1]))
    yield Difference(field, what, *shown, key)


def _arguments(first: str, second: str) -> tuple[str, str]:
    """The arguments of two serve commands that only one of them has."""
    sides = [re.split(r" (?=--)", command) for command in (first, second)]
    ours = " ".join(one for one in sides[0] if one not in sides[1])
    others = " ".join(one for one in sides[1] if one not in sides[0])
    return ours or _ABSENT, others or _ABSENT


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _DIGEST.fullmatch(text):
        return text[:_SHOWN_DIGITS]
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _readable(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))
