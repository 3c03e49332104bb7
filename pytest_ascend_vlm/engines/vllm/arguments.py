"""Converts a model's serve arguments to vLLM's command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any


def command_line(serve: Mapping[str, Any]) -> list[str]:
    """Python values as command line words: True -> `--flag`, False -> `--no-flag`, dict -> JSON."""
    arguments: list[str] = []
    for name, value in serve.items():
        flag = name.replace("_", "-")
        if value is True:
            arguments.append(f"--{flag}")
        elif value is False:
            arguments.append(f"--no-{flag}")
        elif isinstance(value, Mapping):
            arguments += [f"--{flag}", json.dumps(dict(value), sort_keys=True)]
        elif isinstance(value, (list, tuple)):
            arguments += [f"--{flag}", *map(str, value)]
        else:
            arguments += [f"--{flag}", str(value)]
    return arguments


def serve_command(served_name: str, serve: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """The command line of a deployment, with its environment variables."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in env.items()]
    command = ["vllm", "serve", served_name, *command_line(serve)]
    return " ".join([*variables, shlex.join(command)])
