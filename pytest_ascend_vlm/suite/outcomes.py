"""From a test's end to the report's rows and to what a reader is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ..errors import CriterionFailed, VlmError
from ..reporting.rows import Row, as_json
from .fixtures import JUDGE, case_id_of
from .run import Run
from .selection import criterion_of, model_of
from .session import NOT_APPLICABLE, Judge

_SHOWN = pytest.StashKey[set[str]]()


def explain_collection(report: pytest.CollectReport) -> pytest.CollectReport:
    """A mistake in a model file is shown as its message instead of a traceback."""
    call = getattr(report, "call", None)
    if call is not None and call.excinfo is not None and call.excinfo.errisinstance(VlmError):
        report.longrepr = str(call.excinfo.value)
    return report


def finish(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, run: Run
) -> pytest.TestReport:
    """Shortens what is shown, and attaches the rows that the report is made of."""
    judge = item.stash.get(JUDGE, None)
    if report.when == "call" and report.passed and _judged_nothing(item, judge):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} ended without a verdict, so it verified nothing."
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, (VlmError, CriterionFailed)) and report.failed:
        report.longrepr = _message(item, error)
    # A strict expected failure that passes is a verdict too: the declaration is wrong.
    is_verdict = (
        isinstance(error, CriterionFailed) or "[XPASS(strict)]" in str(report.longrepr)[:20]
    )
    rows = _rows(item, report, judge, is_verdict)
    models = [("vlm_model", _of_class(item, record)) for record in run.model_records]
    run.model_records.clear()
    report.user_properties = [*report.user_properties, *rows, *models]
    return report


def _of_class(item: pytest.Item, record: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a server, with the class whose it was: two may serve one model."""
    stamped: dict[str, Any] = as_json({**record, "suite_class": item.cls.__name__})  # type: ignore[attr-defined]
    return stamped


def _judged_nothing(item: pytest.Item, judge: Judge | None) -> bool:
    if criterion_of(item) is None:
        return False
    return judge is None or not (judge.verdicts or judge.recorded_path)


def _message(item: pytest.Item, error: Exception) -> str:
    """The error's message; of one that stops many tests, as a failed start does, once in full."""
    shown = item.config.stash.setdefault(_SHOWN, set())
    text = str(error)
    if text in shown:
        return text.splitlines()[0] + " (in full above, at the first test it stopped)"
    shown.add(text)
    return text


def _rows(
    item: pytest.Item, report: pytest.TestReport, judge: Judge | None, is_verdict: bool
) -> list[tuple[str, dict[str, Any]]]:
    what, model = criterion_of(item), model_of(item)
    if what is None and judge is not None:
        what = judge.criterion  # a test of the user's own that judges
    status = _status(report, is_verdict)
    if what is None or model is None or status is None:
        return []
    row = Row(
        model=model.model_id,
        suite_class=item.cls.__name__,  # type: ignore[attr-defined]
        criterion=what.id,
        case=case_id_of(item),
        status=status,
        reason=_reason(report),
        seconds=report.duration,
        reference_knows=judge is None or judge.reference_knows,
    )
    judged = judge.verdicts if judge and report.when == "call" else []
    if not judged:
        return [("vlm_row", row.with_verdict(None))]
    return [("vlm_row", row.with_verdict(verdict)) for verdict in judged]


def _status(report: pytest.TestReport, is_verdict: bool) -> str | None:
    """The row's status; None where this phase of the test settles nothing."""
    if report.skipped:
        if hasattr(report, "wasxfail"):
            return "xfail"
        return "na" if NOT_APPLICABLE in _skip_reason(report) else "skip"
    if report.failed:
        return "fail" if is_verdict else "error"
    return "pass" if report.when == "call" else None


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    if report.skipped:
        return _skip_reason(report).removeprefix("Skipped: ").removeprefix(NOT_APPLICABLE)
    return str(report.longrepr) if report.failed else ""


def _skip_reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
