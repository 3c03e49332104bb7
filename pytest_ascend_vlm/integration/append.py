"""Appends a run to the report of earlier runs (`--vlm-report-append`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..reporting.merge import Named, merge, refusals
from ..reporting.reading import FILE_NAME, SCHEMA, read
from ..session.run import Run
from .receipt import receipt

THIS_RUN = "this run"


@dataclass(frozen=True)
class Appended:
    """The report to write at the end of a run.

    Attributes:
        document: the content of report.json.
        directory: the directory to write it to.
        lines: lines about the merge for the terminal.
        refused: True if the earlier report cannot take this run; the run then has a report of its
            own.
    """

    document: Mapping[str, Any]
    directory: Path
    lines: tuple[str, ...] = ()
    refused: bool = False


def require_appendable(run: Run) -> None:
    """Requires that this run can be merged with the report of `--vlm-report`.

    What the models are served with is compared at the end, when it is known.

    Raises:
        ConfigurationError: the earlier report is unreadable, or its receipt differs.
    """
    directory = run.options.report
    if directory is None or not run.options.append_report or not _report_in(directory).is_file():
        return
    this = {"schema": SCHEMA, "receipt": receipt(run, []), "models": [], "rows": []}
    earlier = Named(str(directory), read(_report_in(directory)))
    if lines := refusals([earlier, Named(THIS_RUN, this)]):
        problem = f"--vlm-report-append: this run does not fit the report in {directory}:"
        raise ConfigurationError("\n  ".join([problem, *lines]))


def appended(document: Mapping[str, Any], directory: Path) -> Appended:
    """A run's report, merged with the one in the directory if there is one."""
    if not _report_in(directory).is_file():
        return Appended(document, directory)
    try:
        earlier = Named(str(directory), read(_report_in(directory)))
        merged = merge([earlier, Named(THIS_RUN, document)])
    except ConfigurationError as error:
        date = document["receipt"]["runs"][0]["date"]
        own = directory / f"not-merged-{re.sub('[^0-9]', '', date)[:14]}"
        return Appended(document, own, tuple(str(error).splitlines()), refused=True)
    replaced = f"merged with the report in {directory}: {merged.replaced} earlier results replaced"
    outlived = (f"an earlier verdict stays, this run has an error: {x}" for x in merged.outlived)
    return Appended(merged.document, directory, (replaced, *outlived))


def _report_in(directory: Path) -> Path:
    return directory / FILE_NAME
