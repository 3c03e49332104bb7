"""The summary of a run for GitHub Actions, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .diagnosis import diagnosis_lines
from .markdown.escape import cell, code_block
from .rows import address, name_of, row_ids
from .summary import Rows, by_class, counts_text, not_applicable, worst_text

VARIABLE = "GITHUB_STEP_SUMMARY"
"""The environment variable that names the file of the step's summary."""

_SHOWN_REASONS = 20


def artifacts(environment: Mapping[str, str]) -> str | None:
    """The address of the run's artifacts; None outside of GitHub Actions."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (environment.get(name) for name in names)
    if not (server and repository and run):
        return None
    return f"{server}/{repository}/actions/runs/{run}#artifacts"


def step_summary(rows: Rows, last_line: str, *, has_page: bool, place: str | None) -> str:
    """The closing table, the diagnoses, and the text of each failure and error.

    Args:
        rows: the report's rows.
        last_line: the last line of the run.
        has_page: True if the run writes report.html; each failure then has its address there.
        place: the address of the run's artifacts, if there is one.
    """
    head = ["### ascend-vlm", "", cell(last_line), ""]
    if has_page and place:
        head += [f"report.html is in the [artifacts]({place}), if the job uploads them.", ""]
    table = ["| model | criteria | results | worst margin |", "|---|---|---|---|"]
    found = diagnosis_lines(rows)
    diagnosis = [code_block("\n".join(found)), ""] if found else []
    reasons = _reasons(rows, has_page=has_page)
    return "\n".join([*head, *table, *_table(rows), "", *diagnosis, *reasons]) + "\n"


def _table(rows: Rows) -> Iterator[str]:
    for head, groups in by_class(rows).items():
        if why_not := not_applicable(groups):
            yield f"| {cell(head)} | | not applicable: {cell(why_not)} | |"
            continue
        for group, of_group in groups.items():
            cells = (head, group, counts_text(of_group), worst_text(of_group))
            yield f"| {' | '.join(map(cell, cells))} |"


def _reasons(rows: Rows, *, has_page: bool) -> Iterator[str]:
    named = zip(row_ids(rows), rows, strict=True)
    bad = [
        (row_id, row)
        for row_id, row in named
        if row["status"] in {"fail", "error"} and not row["told_at"]
    ]
    for row_id, row in bad[:_SHOWN_REASONS]:
        name = cell(name_of(row["criterion"], row["case"]))
        link = f" `report.html#{address(row_id)}`" if has_page else ""
        yield f"**{row['status']}** {cell(row['suite_class'])} {name}{link}"
        yield f"\n{code_block(row['reason'])}\n"
    if len(bad) > _SHOWN_REASONS:
        yield f"and {len(bad) - _SHOWN_REASONS} more"
