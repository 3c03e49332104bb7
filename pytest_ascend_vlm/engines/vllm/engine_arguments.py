"""Selects the serve arguments that an offline engine of the installed vLLM takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def engine_arguments(serve: Mapping[str, Any]) -> dict[str, Any]:
    """The serve arguments without those of the API server."""
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in dataclasses.fields(EngineArgs)}
    return {name: value for name, value in serve.items() if name in known}
