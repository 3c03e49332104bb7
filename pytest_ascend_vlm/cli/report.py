"""The commands `ascend-vlm report render`, `merge`, `compare` and `bundle`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..named_path import named_path
from ..reporting import rendered, write_document, write_report
from ..reporting.compare import compare
from ..reporting.language import LANGUAGES
from ..reporting.markdown import render
from ..reporting.merge import Named, merge
from ..reporting.reading import no_report, read
from .output import write_output, writing_to

_REPORT = "a report.json that pytest --vlm-report wrote, or its directory"


def add_to(commands: Any) -> None:
    """Adds the command `report` with its subcommands."""
    report = commands.add_parser(
        "report",
        help="print, merge, compare or bundle reports of pytest --vlm-report",
        description="Works on the report.json of earlier runs. No test is run.",
    )
    actions = report.add_subparsers(title="commands", dest="action", required=True)
    _add_render(actions)
    _add_merge(actions)
    _add_compare(actions)
    _add_bundle(actions)


def _add_render(actions: Any) -> None:
    command = actions.add_parser(
        "render",
        help="print the adaptation document of a report",
        description="Renders the adaptation document again.",
    )
    command.add_argument("report", type=named_path, metavar="REPORT", help=_REPORT)
    command.add_argument(
        "--language", choices=LANGUAGES, default="zh", help="language of the document (default: zh)"
    )
    command.add_argument(
        "--output",
        type=named_path,
        metavar="DIR",
        help="write the document and all files that it links to (its charts) to DIR, instead of "
        "printing the document without charts",
    )
    command.set_defaults(run=_render)


def _add_merge(actions: Any) -> None:
    command = actions.add_parser(
        "merge",
        help="merge the reports of several runs into one",
        description="Merges the reports of several runs, such as -m npu, -m performance, -m "
        "dataset and reruns. Name them in the order of the runs: a later verdict replaces an "
        "earlier one of the same test. A skip, an error or a test that did not run replaces no "
        "verdict. The platform, the checkpoints, the device, the versions and the serve commands "
        "must be the same in all of them.",
    )
    command.add_argument("first", type=named_path, metavar="REPORT", help=_REPORT)
    command.add_argument(
        "others", type=named_path, nargs="+", metavar="REPORT", help="later reports"
    )
    command.add_argument(
        "--output",
        type=named_path,
        required=True,
        metavar="DIR",
        help="directory to write report.json, the documents and their charts to",
    )
    command.set_defaults(run=_merge)


def _add_compare(actions: Any) -> None:
    command = actions.add_parser(
        "compare",
        help="print what changed between two reports, for example of two releases",
        description="Prints the results that turned, the numbers that moved beyond their interval, "
        "and what is new or gone, worst first. Versions, devices and serve commands may differ; "
        "the platform and the kind of checkpoint may not.",
        epilog="exit code: 0 if nothing is worse; 1 if a test newly fails or newly ends with "
        "an error, a pass is now a known failure, a number moved to the worse beyond "
        "its interval, or a test that ran is gone or did not run; 2 if the reports cannot be "
        "compared",
    )
    command.add_argument("old", type=named_path, metavar="OLD", help=_REPORT)
    command.add_argument(
        "new", type=named_path, metavar="NEW", help="the report to compare with it"
    )
    command.set_defaults(run=_compare)


def _add_bundle(actions: Any) -> None:
    command = actions.add_parser(
        "bundle",
        help="write what is handed in to an Ascend community, for one model",
        description="Writes README.md (Chinese), inference.py, eval/, results/ and logs/ of one "
        "model; of a run of the real checkpoint on an NPU also the files for vllm-ascend's "
        "repository. Run it in the root of the project that has the model file.",
    )
    command.add_argument("report", type=named_path, metavar="REPORT", help=_REPORT)
    command.add_argument(
        "--model",
        metavar="CLASS",
        help="test class of the model (needed if the report has several)",
    )
    command.add_argument(
        "--output",
        type=named_path,
        required=True,
        metavar="DIR",
        help="a new or an empty directory",
    )
    command.set_defaults(run=_bundle)


@contextlib.contextmanager
def _shaped(*reports: Path) -> Iterator[None]:
    """Tells in one line that one of the reports lacks what a command reads."""
    import jinja2

    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, jinja2.UndefinedError) as error:
        names = " or ".join(str(report) for report in reports)
        raise ConfigurationError(no_report(names, error)) from error


def _render(options: argparse.Namespace) -> int:
    document = read(options.report)
    with _shaped(options.report):
        if options.output is None:
            _print(render(document, options.language, charts=False))
            return 0
        files = rendered(document, [options.language])
    with writing_to(options.output):
        written = write_report(files.items(), options.output)
    _print_lines(written.lines)
    return 0


def _merge(options: argparse.Namespace) -> int:
    paths = [options.first, *options.others]
    reports = [Named(str(path), read(path)) for path in paths]
    with writing_to(options.output), _shaped(*paths):
        merged = merge(reports)
        written = write_document(merged.document, options.output)
    rows = len(merged.document["rows"])
    print(f"{rows} rows; {merged.replaced} earlier results were replaced by later ones")
    for name in merged.outlived:
        print(f"an earlier verdict stays, a later run has an error: {name}")
    _print_lines(written.lines)
    return 0


def _compare(options: argparse.Namespace) -> int:
    old, new = (Named(str(path), read(path)) for path in (options.old, options.new))
    with _shaped(options.old, options.new):
        comparison = compare(old, new)
        _print(str(comparison))
    return 1 if comparison.is_worse else 0


def _bundle(options: argparse.Namespace) -> int:
    from ..reporting import bundle
    from ..reporting.bundle.attached import attached

    document = read(options.report)
    _require_empty(options.output)
    with _shaped(options.report):
        classes = bundle.suite_classes(document)
        chosen = options.model or (classes[0] if len(classes) == 1 else None)
        if chosen not in classes:
            raise ConfigurationError(_which(options, classes))
        of_class = bundle.of_class(document, chosen)
        files = bundle.files(of_class, attached(of_class, Path.cwd()))
    _print_lines(f"written: {path}" for path in write_output(files, options.output))
    return 0


def _require_empty(directory: Path) -> None:
    """Raises an error if a bundle would be mixed with other files.

    The project's README.md would be lost; the vllm-ascend/ of an earlier run on an NPU would stay
    beside the results of a run that was none.
    """
    with writing_to(directory):
        is_empty = not directory.exists() or not any(directory.iterdir())
    if not is_empty:
        raise ConfigurationError(
            f"{directory} is not empty; name a new or an empty directory with --output."
        )


def _which(options: argparse.Namespace, classes: Sequence[str]) -> str:
    if not classes:
        return f"{options.report} has no judged model."
    named = f"has no judged test class {options.model}" if options.model else "has several models"
    return f"{options.report} {named}; choose with --model one of: {', '.join(classes)}"


def _print(text: str) -> None:
    """Prints text that may contain half a surrogate pair, which no stream can encode."""
    print(text.encode("utf-8", "replace").decode("utf-8"))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
