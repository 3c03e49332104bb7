"""The command `ascend-vlm` with its subcommands doctor, criteria, gate-list and render."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .criteria.groups import GATE_LIST_MARKERS
from .errors import ConfigurationError, VlmError
from .model_files import model_files_in
from .reporting import SCHEMA, rendered, write_files
from .reporting.language import LANGUAGES
from .reporting.markdown import render

_CONFORMANCE = Path("conformance")
_BROKEN_PIPE = 128 + signal.SIGPIPE  # the exit code of a command that SIGPIPE ended, in a shell


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # UTF-8 in every locale. surrogateescape prints undecodable bytes of a path unchanged.
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout again at exit; that must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "doctor":
            return _doctor()
        print(_text(options))
    except VlmError as error:
        print(f"ascend-vlm: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ascend-vlm",
        description="Conformance tests of vision-language models on Ascend NPUs. The tests run "
        "with pytest (see the --vlm-* options in pytest --help); these commands prepare a run and "
        "print its results.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {version('pytest-ascend-vlm')}"
    )
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    _add_command(
        commands,
        "doctor",
        "check whether this host can serve a model on an NPU",
        "Prints cards, devices, versions and weight caches, and what is missing to serve a model "
        "on an NPU. The exit code is 1 if something is missing.",
    )
    _add_command(
        commands,
        "criteria",
        "print the documentation of all criteria",
        "Prints every criterion as Markdown: what it asks, why it matters, and what to try if it "
        "fails.",
    )
    _add_gate_list(commands)
    _add_render(commands)
    return parser


def _add_command(commands: Any, name: str, summary: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=text)
    return command


def _add_gate_list(commands: Any) -> None:
    gate_list = _add_command(
        commands,
        "gate-list",
        "write the list of criteria that pytest --vlm-gate requires",
        "Imports the model files and writes one line per test class and criterion. Do not edit the "
        "list by hand: run this command again after a change of the model files.",
    )
    gate_list.add_argument(
        "directory",
        type=Path,
        nargs="?",
        metavar="DIR",
        help="directory of the model files (default: conformance if it contains model files, else "
        "the current directory)",
    )
    gate_list.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write (default: DIR/required.txt; conformance/required.txt if DIR is not "
        "given)",
    )
    gate_list.add_argument(
        "--only", nargs="+", metavar="CLASS", default=(), help="list only these test classes"
    )
    gate_list.add_argument(
        "--marker",
        choices=GATE_LIST_MARKERS,
        help="list the criteria that run only with pytest -m MARKER, instead of those that always "
        "run",
    )


def _add_render(commands: Any) -> None:
    again = _add_command(
        commands,
        "render",
        "print the adaptation document of a report.json",
        "Renders the adaptation document from a report.json without running a test.",
    )
    again.add_argument("report", type=Path, help="a report.json written by pytest --vlm-report")
    again.add_argument(
        "--language", choices=LANGUAGES, default="zh", help="language of the document (default: zh)"
    )
    again.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write the document and its charts to DIR, instead of printing the document without "
        "charts",
    )


def _doctor() -> int:
    from .doctor import diagnose

    diagnosis = diagnose()
    print(diagnosis)
    return 1 if diagnosis.problems else 0


def _text(options: argparse.Namespace) -> str:
    if options.command == "render":
        return _render(options)
    if options.command == "gate-list":
        return _gate_list(options)
    from .suite.catalogue import markdown

    return markdown()


def _gate_list(options: argparse.Namespace) -> str:
    has_models = any(model_files_in(_CONFORMANCE))
    searched = options.directory or (_CONFORMANCE if has_models else Path())
    path = options.output or (options.directory or _CONFORMANCE) / "required.txt"
    from .suite import gate_list

    content = gate_list.text(searched, options.only, options.marker)
    _write({path.name: content}, path.parent)
    return f"written: {path} ({len(content.splitlines()) - 1} criteria)"


def _render(options: argparse.Namespace) -> str:
    import jinja2

    try:
        document = json.loads(options.report.read_text("utf-8"))
        if (schema := document["schema"]) != SCHEMA:
            raise ConfigurationError(
                f"{options.report} has schema {schema}, but this version renders schema {SCHEMA}; "
                "render it with the version that wrote it."
            )
        if options.output is None:
            text = render(document, options.language, charts=False)
            return text.encode("utf-8", "replace").decode("utf-8")
        files = rendered(document, [options.language])
    except OSError as error:
        raise ConfigurationError(f"cannot read {options.report} ({error.strerror}).") from error
    except (ValueError, LookupError, TypeError, AttributeError, jinja2.UndefinedError) as e:
        raise ConfigurationError(
            f"{options.report} is not a report written by pytest --vlm-report ({e!r})."
        ) from e
    return "\n".join(f"written: {path}" for path in _write(files, options.output))


def _write(files: Mapping[str, str], directory: Path) -> list[Path]:
    try:
        return write_files(files, directory)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {directory} ({error.strerror}); name another directory with --output."
        ) from error
