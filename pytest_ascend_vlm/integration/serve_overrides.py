"""`--vlm-serve NAME=VALUE`: serve arguments of this host, in the place of a model file's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ..errors import ConfigurationError
from ..session.run import Run
from ..spec.model import ModelSpec

OPTION = "--vlm-serve"
_AS_IN_A_MODEL_FILE = {"True": True, "False": False, "None": None}


def read(config: pytest.Config) -> Mapping[str, Any]:
    """Name of each argument -> its value, JSON or Python; other values are text.

    Raises:
        ConfigurationError: an entry is not NAME=VALUE, or another option contradicts it.
    """
    typed: Sequence[str] = config.getoption("vlm_serve")
    if typed and config.getoption("vlm_gate"):
        raise ConfigurationError(
            f"--vlm-gate judges what the model files declare; remove {OPTION}, or change the file"
        )
    if typed and config.getoption("vlm_server_url"):
        raise ConfigurationError(
            f"{OPTION} is about servers that the suite starts; remove it, or --vlm-server-url"
        )
    if typed and config.getoption("vlm_record"):
        raise ConfigurationError(
            f"{OPTION} is about servers, and --vlm-record starts none; remove one of them"
        )
    return dict(map(parsed, typed))


def apply(collector: pytest.Collector, run: Run) -> str | None:
    """Replaces serve arguments of a test class's model; returns the problem if that cannot be.

    None removes an argument.
    """
    overrides = run.options.serve_overrides
    if not overrides or not isinstance(collector, pytest.Class):
        return None
    model = getattr(collector.obj, "model", None)
    if not isinstance(model, ModelSpec):
        return None
    try:
        serve = {**model.serve, **overrides}
        kept = {name: value for name, value in serve.items() if value is not None}
        changed = dataclasses.replace(model, serve=kept)
    except ConfigurationError as error:
        return f"{collector.nodeid}: {OPTION}: {error}"
    collector.obj.model = changed
    return None


def parsed(entry: str) -> tuple[str, Any]:
    """The name and the value of NAME=VALUE.

    Raises:
        ConfigurationError: it is not NAME=VALUE.
    """
    name, separator, text = (part.strip() for part in entry.partition("="))
    if not (name and separator and text):
        raise ConfigurationError(f"{OPTION} {entry}: type NAME=VALUE, {OPTION} max_model_len=8192")
    if text in _AS_IN_A_MODEL_FILE:
        return name, _AS_IN_A_MODEL_FILE[text]
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text
