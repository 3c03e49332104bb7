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


def read(config: pytest.Config) -> Mapping[str, Any]:
    """Name of each argument -> its value. A value that is no JSON is text.

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
    return dict(map(_parsed, typed))


def apply(collector: pytest.Collector, run: Run) -> str | None:
    """Replaces serve arguments of a test class's model; returns the problem if that cannot be."""
    overrides = run.options.serve_overrides
    if not overrides or not isinstance(collector, pytest.Class):
        return None
    model = getattr(collector.obj, "model", None)
    if not isinstance(model, ModelSpec):
        return None
    try:
        changed = dataclasses.replace(model, serve={**model.serve, **overrides})
    except ConfigurationError as error:
        return f"{collector.nodeid}: {OPTION}: {error}"
    collector.obj.model = changed
    return None


def _parsed(entry: str) -> tuple[str, Any]:
    name, separator, text = (part.strip() for part in entry.partition("="))
    if not (name and separator and text):
        raise ConfigurationError(f"{OPTION} {entry}: type NAME=VALUE, {OPTION} max_model_len=8192")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text
