"""The summary of a run for GitHub Actions, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from .markdown.escape import cell, code_block
from .rows import name_of
from .summary import Rows, by_class, counts_text, not_applicable, worst_text

VARIABLE = "GITHUB_STEP_SUMMARY"
"""The environment variable that names the file of the step's summary."""

_SHOWN_REASONS = 20


def step_summary(rows: Rows, last_line: str) -> str:
    """The closing table, and the text of each failure and error.

    Args:
        rows: the report's rows.
        last_line: the last line of the run.
    """
    head = ["### ascend-vlm", "", cell(last_line), ""]
    table = ["| model | criteria | results | worst margin |", "|---|---|---|---|"]
    return "\n".join([*head, *table, *_table(rows), "", *_reasons(rows)]) + "\n"


def _table(rows: Rows) -> Iterator[str]:
    for head, groups in by_class(rows).items():
        if why_not := not_applicable(groups):
            yield f"| {cell(head)} | | not applicable: {cell(why_not)} | |"
            continue
        for group, of_group in groups.items():
            cells = (head, group, counts_text(of_group), worst_text(of_group))
            yield f"| {' | '.join(map(cell, cells))} |"


def _reasons(rows: Rows) -> Iterator[str]:
    bad = [row for row in rows if row["status"] in {"fail", "error"} and not row["told_at"]]
    for row in bad[:_SHOWN_REASONS]:
        name = cell(name_of(row["criterion"], row["case"]))
        yield f"**{row['status']}** {cell(row['suite_class'])} {name}"
        yield f"\n{code_block(row['reason'])}\n"
    if len(bad) > _SHOWN_REASONS:
        yield f"and {len(bad) - _SHOWN_REASONS} more"
