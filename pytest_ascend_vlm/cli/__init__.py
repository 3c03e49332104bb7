"""The command `ascend-vlm`: its subcommands are listed by `ascend-vlm --help`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..control_characters import with_visible_controls
from ..criteria.groups import GATE_LIST_MARKERS
from ..errors import ConfigurationError, VlmError
from ..model_files import model_files_in
from ..named_path import named_path
from . import cluster, limits, report
from .output import write_output

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
            if sys.stdout is not None:  # None if the command was started with a closed stdout
                sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout again at exit; that must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        exit_code: int = options.run(options)
    except VlmError as error:
        print(f"ascend-vlm: {with_visible_controls(str(error))}", file=sys.stderr)
        return 2
    return exit_code


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
    _add_doctor(commands)
    _add_command(
        commands,
        "criteria",
        "print the documentation of all criteria",
        "Prints every criterion as Markdown: what it asks, why it matters, and what to try if it "
        "fails.",
    ).set_defaults(run=_criteria)
    _add_gate_list(commands)
    cluster.add_to(commands)
    limits.add_to(commands)
    report.add_to(commands)
    return parser


def _add_command(commands: Any, name: str, summary: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=text)
    return command


def _add_doctor(commands: Any) -> None:
    doctor = _add_command(
        commands,
        "doctor",
        "check whether this host can serve a model on an NPU",
        "Prints cards, devices, ports, image, versions and weight caches, and what is missing to "
        "serve a model on an NPU. Makes a tensor on each idle card. The exit code is 1 if "
        "something is missing.",
    )
    doctor.add_argument(
        "directory",
        type=named_path,
        nargs="?",
        metavar="DIR",
        help="model file, or directory of model files, to see if the installed vLLM has their "
        "architectures",
    )
    doctor.set_defaults(run=_doctor)


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
        type=named_path,
        nargs="?",
        metavar="DIR",
        help="directory of the model files (default: conformance if it contains model files, else "
        "the current directory)",
    )
    gate_list.add_argument(
        "--output",
        type=named_path,
        metavar="FILE",
        help="file to write (default: DIR/required.txt, or DIR/required-MARKER.txt; in conformance "
        "if DIR is not given)",
    )
    gate_list.add_argument(
        "--only",
        nargs="+",
        metavar="CLASS",
        default=(),
        help="list only these test classes; needs --output",
    )
    gate_list.add_argument(
        "--marker",
        choices=GATE_LIST_MARKERS,
        help="list the criteria that run only with pytest -m MARKER, instead of those that always "
        "run",
    )
    gate_list.set_defaults(run=_gate_list)


def _doctor(options: argparse.Namespace) -> int:
    from ..doctor import diagnose
    from ..suite.gate_list import suite_classes

    diagnosis = diagnose(suite_classes(options.directory) if options.directory else {})
    print(diagnosis)
    return 1 if diagnosis.problems else 0


def _criteria(options: argparse.Namespace) -> int:  # noqa: ARG001
    from ..suite.catalogue import markdown

    print(markdown())
    return 0


def _gate_list(options: argparse.Namespace) -> int:
    has_models = any(model_files_in(_CONFORMANCE))
    searched = options.directory or (_CONFORMANCE if has_models else Path())
    if options.only and options.output is None:
        raise ConfigurationError(
            "--only lists a part of the test classes, which would replace the list of all; name "
            "the file with --output"
        )
    name = f"required-{options.marker}.txt" if options.marker else "required.txt"
    path = options.output or (options.directory or _CONFORMANCE) / name
    from ..suite import gate_list

    content = gate_list.text(searched, options.only, options.marker)
    write_output({path.name: content}, path.parent)
    listed = [line for line in content.splitlines() if not line.startswith("#")]
    print(f"written: {path} ({len(listed)} criteria)")
    return 0
