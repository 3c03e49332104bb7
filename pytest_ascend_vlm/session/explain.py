"""The message of a failed criterion."""

from __future__ import annotations

import textwrap

from ..criteria.criterion import Criterion, Documentation
from ..criteria.verdict import Verdict

_WIDTH = 98


def explain(
    criterion: Criterion, documentation: Documentation, case_id: str | None, verdict: Verdict
) -> str:
    """The message of a failed verdict: case, finding, measured value, details, and advice."""
    case = f" [{case_id}]" if case_id else ""
    measured = (
        f"{verdict.measured:.4g} {verdict.unit}, {verdict.sense} {verdict.threshold:.4g} is "
        f"required (margin {verdict.margin:+.4g})"
    )
    details = [f"  {line}" for line in "\n".join(verdict.details).splitlines()]
    advice = textwrap.fill(
        " ".join(documentation.if_this_fails.split()),
        _WIDTH,
        initial_indent="What to try: ",
        subsequent_indent="  ",
        break_on_hyphens=False,  # an option stays in one piece
    )
    lines = [f"{criterion.id}{case}: {verdict.reason}", f"  measured {measured}", *details]
    return "\n".join([*lines, advice] if documentation.if_this_fails else lines)
