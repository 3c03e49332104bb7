"""`ascend-vlm`: what a host lacks, what is asked of a model, what a gate asks, a report again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ConfigurationError, VlmError
from .files import write_atomically
from .reporting.markdown import LANGUAGES, render


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
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
        prog="ascend-vlm", description="Conformance of vision-language models on Ascend NPUs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="say whether a model can be served on an NPU here, and why")
    commands.add_parser("criteria", help="print every criterion: what it asks and what to try")
    required = commands.add_parser(
        "required", help="write the list of what pytest --vlm-gate must see, from the model files"
    )
    required.add_argument(
        "directory", type=Path, nargs="?", default=Path("conformance"), help="default: conformance"
    )
    required.add_argument(
        "--output", type=Path, metavar="FILE", help="default: required.txt in the directory"
    )
    required.add_argument(
        "--only", nargs="+", metavar="CLASS", default=(), help="only these test classes"
    )
    required.add_argument(
        "--marker",
        choices=("performance", "dataset"),
        help="the criteria that run only where pytest's -m names this, instead of the others",
    )
    again = commands.add_parser("render", help="print the adaptation document of a report.json")
    again.add_argument("report", type=Path, help="a report.json written by pytest --vlm-report")
    again.add_argument("--language", choices=LANGUAGES, default="zh", help="default: zh")
    return parser


def _doctor() -> int:
    from .doctor import diagnose

    diagnosis = diagnose()
    print(diagnosis)
    return 1 if diagnosis.problems else 0


def _text(options: argparse.Namespace) -> str:
    if options.command == "render":
        return _render(options)
    if options.command == "required":
        return _required(options)
    from .suite.catalogue import markdown

    return markdown()


def _required(options: argparse.Namespace) -> str:
    from . import gate

    path = options.output or options.directory / "required.txt"
    content = gate.text(options.directory, options.only, options.marker)
    write_atomically(path, content.encode("utf-8"))
    return f"written: {path} ({len(content.splitlines()) - 1} criteria)"


def _render(options: argparse.Namespace) -> str:
    try:
        document = json.loads(options.report.read_text("utf-8"))
        return render(document, options.language)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{options.report} is not a report that pytest --vlm-report has written ({error!r})."
        ) from error
