"""`ascend-vlm`: what a host lacks, what is asked of a model, what a gate asks, a report again."""

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

from .criteria.groups import GATE_LIST_MARKERS
from .errors import ConfigurationError, VlmError
from .model_files import model_files_in
from .reporting import SCHEMA, rendered, write_files
from .reporting.markdown import LANGUAGES, render

_CONFORMANCE = Path("conformance")
_READER_GONE = 128 + signal.SIGPIPE  # what a shell reports of any command whose reader has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever the locale; a path that it could not decode is printed as it was typed.
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        try:
            return _main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Nothing is left to flush when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE


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
        prog="ascend-vlm", description="Conformance of vision-language models on Ascend NPUs."
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {version('pytest-ascend-vlm')}"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="say whether a model can be served on an NPU here, and why")
    commands.add_parser("criteria", help="print every criterion: what it asks and what to try")
    gate_list = commands.add_parser(
        "gate-list", help="write the list of what pytest --vlm-gate must see, from the model files"
    )
    gate_list.add_argument(
        "directory",
        type=Path,
        nargs="?",
        help="where the model files are (default: conformance if there is one, else the current "
        "directory)",
    )
    gate_list.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: required.txt in the directory, without one conformance/required.txt",
    )
    gate_list.add_argument(
        "--only", nargs="+", metavar="CLASS", default=(), help="only these test classes"
    )
    gate_list.add_argument(
        "--marker",
        choices=GATE_LIST_MARKERS,
        help="the criteria that run only where pytest's -m names this, instead of the others",
    )
    again = commands.add_parser("render", help="print the adaptation document of a report.json")
    again.add_argument("report", type=Path, help="a report.json written by pytest --vlm-report")
    again.add_argument("--language", choices=LANGUAGES, default="zh", help="default: zh")
    again.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write the document to DIR, with the charts that it links, instead of printing it "
        "without them",
    )
    return parser


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
                f"{options.report} has schema {schema}, this version renders {SCHEMA}; render it "
                "with the version that wrote it."
            )
        if options.output is None:
            text = render(document, options.language, charts=False)
            return text.encode("utf-8", "replace").decode("utf-8")
        files = rendered(document, [options.language])
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        jinja2.UndefinedError,
    ) as e:
        raise ConfigurationError(
            f"{options.report} is not a report that pytest --vlm-report has written ({e!r})."
        ) from e
    return "\n".join(f"written: {path}" for path in _write(files, options.output))


def _write(files: Mapping[str, str], directory: Path) -> list[Path]:
    try:
        return write_files(files, directory)
    except OSError as error:
        raise ConfigurationError(
            f"nothing can be written to {directory} ({error.strerror})."
        ) from error
