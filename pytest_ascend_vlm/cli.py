"""`ascend-vlm`: what is asked of a model, and a report rendered again."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import ConfigurationError, VlmError
from .reporting.markdown import LANGUAGES, render


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        print(_criteria() if options.command == "criteria" else _render(options))
    except VlmError as error:
        print(f"ascend-vlm: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ascend-vlm", description="Conformance of vision-language models on Ascend NPUs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("criteria", help="print every criterion: what it asks and what to try")
    again = commands.add_parser("render", help="print the adaptation document of a report.json")
    again.add_argument("report", type=Path, help="a report.json written by pytest --vlm-report")
    again.add_argument("--language", choices=LANGUAGES, default="zh", help="default: zh")
    return parser


def _criteria() -> str:
    from .suite.catalogue import markdown

    return markdown()


def _render(options: argparse.Namespace) -> str:
    try:
        document = json.loads(options.report.read_text("utf-8"))
        return render(document, options.language)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{options.report} is not a report that pytest --vlm-report has written ({error!r})."
        ) from error
