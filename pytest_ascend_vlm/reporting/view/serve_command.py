"""The deployment's command as a user starts it, from the command line in report.json."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .api_server_arguments import API_SERVER_ARGUMENTS

PORT = 8000
"""vLLM's default port."""

URL = f"http://localhost:{PORT}/v1"
"""The address of the server's API."""

_VARIABLE = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class ServeCommand:
    """The deployment's command, in its parts; the suite's own arguments are not in it.

    Attributes:
        env: environment variables.
        name: the model's name in the command and in requests.
        flags: one tuple per argument: the flag and its words.
    """

    env: Mapping[str, str]
    name: str
    flags: tuple[tuple[str, ...], ...]

    @property
    def exports(self) -> str:
        """The environment variables as lines of a shell; empty if there are none."""
        return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in self.env.items())

    @property
    def printed(self) -> tuple[tuple[str, ...], ...]:
        """The flags of the printed command: vLLM's usual address, then its own."""
        return ("--host", "0.0.0.0"), ("--port", str(PORT)), *self.flags  # noqa: S104

    @property
    def shell(self) -> str:
        """The command as lines of a shell."""
        flags = (shlex.join(flag) for flag in self.printed)
        lines = [f"vllm serve {shlex.quote(self.name)}", *flags]
        return " \\\n  ".join(lines)

    @property
    def lines(self) -> str:
        """The environment variables, then the command, as lines of a shell."""
        return "\n".join(filter(None, (self.exports, self.shell)))

    @property
    def python_arguments(self) -> dict[str, Any]:
        """The flags as arguments of `vllm.LLM`: `--no-x` is x=False, a number or JSON its value.

        Those of the API server are left out.
        """
        arguments = dict(_python_argument(flag) for flag in self.flags)
        return {
            name: value for name, value in arguments.items() if name not in API_SERVER_ARGUMENTS
        }


def parse_serve_command(line: str) -> ServeCommand | None:
    """The parts of a line `NAME=value ... vllm serve MODEL --flag ...`; None if it is no such line.

    An endpoint that the suite did not start has no such line.
    """
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    split = next((i for i, word in enumerate(words) if not _VARIABLE.match(word)), len(words))
    variables, command = words[:split], words[split:]
    if command[:2] != ["vllm", "serve"] or len(command) < 3:
        return None
    env = dict(variable.split("=", 1) for variable in variables)
    return ServeCommand(env, command[2], tuple(_flags(command[3:])))


def _flags(words: list[str]) -> list[tuple[str, ...]]:
    flags: list[tuple[str, ...]] = []
    for word in words:
        if word.startswith("--") or not flags:
            flags.append((word,))
        else:
            flags[-1] = (*flags[-1], word)
    return flags


def _python_argument(flag: tuple[str, ...]) -> tuple[str, Any]:
    name, values = flag[0].removeprefix("--").replace("-", "_"), [_value(v) for v in flag[1:]]
    if not values:
        negated = name.startswith("no_")
        return name.removeprefix("no_") if negated else name, not negated
    return name, values if len(values) > 1 else values[0]


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word
