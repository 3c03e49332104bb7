"""Turns the end of a test into rows of the report and into the text that pytest shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ..control_characters import with_visible_controls
from ..criteria.verdict import Verdict
from ..errors import (
    ConfigurationError,
    CriterionFailed,
    NoAnswer,
    PromptDiffers,
    VlmError,
    WrongEnding,
)
from ..reporting.rows import (
    STATUSES,
    TAKEN_OVER,
    Row,
    address,
    as_json,
    in_one_line,
    name_of,
    row_ids,
    told,
)
from ..session.judge import Judge, NotApplicable
from ..session.run import Run
from ..spec.model import ExpectedFailure
from .criterion_call import call_of
from .findings import FINDINGS, REPORTED_AT, Findings, Location
from .fixtures import JUDGE
from .replaced import ROWS
from .selection import EXPECTED_FAILURES, NOT_APPLICABLE

EVIDENCE = "ascend_vlm"
"""The attribute of a test's report that holds its rows; xdist sends it to the controller."""


ROW, VERDICT = "row", "verdict"
"""The names of the JUnit properties that hold a row's address in report.html, and its text."""


@dataclass(frozen=True)
class _Ending:
    """The status that a phase of a test ended with.

    Attributes:
        status: the row's status.
        reason: reason why the status is not a pass.
        first: the test that shows the same error in full; None if this one does.
    """

    status: str
    reason: str = ""
    first: Location | None = None


def explain_collection(report: pytest.CollectReport) -> pytest.CollectReport:
    """Shows a mistake in a model file as its message instead of a traceback."""
    call = getattr(report, "call", None)
    if call is not None and call.excinfo is not None and call.excinfo.errisinstance(VlmError):
        report.longrepr = str(call.excinfo.value)
    return report


def require_verdict(item: pytest.Item, run: Run) -> None:
    """Checks a test that ended without an exception.

    It raises while the test still runs, so that other plugins see the failure as well.

    Raises:
        ConfigurationError: the test judges, and ended without a verdict.
        WrongEnding: the test caught the failure of a verdict, or passed where it had to fail.
    """
    judge = item.stash.get(JUDGE, None)
    if ROWS in item.stash or (judge is None and call_of(item).criterion is None):
        return
    if judge is not None and judge.recorded_path is not None:
        return
    verdicts = judge.verdicts if judge else []
    if not verdicts:
        raise ConfigurationError(
            f"{item.nodeid} ended without a verdict, so it verified nothing. End it with "
            "judge(verdict), judge.not_applicable(reason) or judge.cannot_run(reason)."
        )
    if failed := [verdict for verdict in verdicts if not verdict.passed]:
        raise WrongEnding(
            f"{failed[0].reason}: this verdict fails, but the test caught CriterionFailed."
        )
    if must_fail := _must_fail(item, run):
        raise WrongEnding(_passes(item, must_fail))


def finish(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, run: Run
) -> pytest.TestReport:
    """Attaches the rows to a test's report, and sets the text that pytest shows."""
    if ROWS in item.stash and call.when == "call":
        rows = item.stash[ROWS]
        ending: _Ending | None = _taken_over(item, report, rows)
    else:
        judge = item.stash.get(JUDGE, None)
        _forget_fixed_failures(item, report, run)
        ending = _shortened_if_repeated(item, _ending(item, call, report, run))
        rows = _rows(item, ending, judge if call.when == "call" else None, report.duration)
    servers = [as_json(facts.as_json()) for facts in run.take_server_facts()]
    setattr(
        report,
        EVIDENCE,
        [*(("vlm_row", row) for row in rows), *(("vlm_model", facts) for facts in servers)],
    )
    if ending is not None:
        _set_properties(item, rows)
        if ending.status == "pass":
            # Allure attaches what was logged; of a pass it shows nothing else.
            item.add_report_section("call", "log", "\n".join(map(_told, rows)))
        _show(item, call, report, ending)
    return report


def status(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """The terminal status of a test that took a verdict over, or is not applicable; else None.

    Both are counted apart and print no letter, because there may be hundreds. A failure that is
    taken over is shown like any other failure.
    """
    rows = [row for name, row in getattr(report, EVIDENCE, ()) if name == "vlm_row"]
    if rows and TAKEN_OVER in rows[0]:
        return None if report.failed else ("taken over", "", "TAKEN OVER")
    if {row["status"] for row in rows} != {"na"}:
        return None
    return "not applicable", "", "NOT APPLICABLE"


def _ending(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, run: Run
) -> _Ending | None:
    """The ending that a phase's verdict or exception causes; None if the test goes on."""
    if call.excinfo is None:
        return _without_exception(item, report)
    error = call.excinfo.value
    if isinstance(error, pytest.skip.Exception):
        return _skipped(item, error)
    if isinstance(error, (CriterionFailed, PromptDiffers)):
        status = "fail" if isinstance(error, CriterionFailed) else "error"
        excuse = _excuse(item, report, error, run)
        return _Ending(status, str(error)) if excuse is None else _Ending("xfail", excuse)
    if isinstance(error, VlmError):
        return _Ending("error", str(error))
    is_own = call_of(item).criterion is None
    if is_own and report.skipped and hasattr(report, "wasxfail"):
        return _Ending("xfail", str(report.wasxfail))
    # A user's plain assert is a verdict about the model.
    status = "fail" if is_own and isinstance(error, AssertionError) else "error"
    return _Ending(status, call.excinfo.exconly())


def _shortened_if_repeated(item: pytest.Item, ending: _Ending | None) -> _Ending | None:
    """Shortens an error to one line if another test of the class already shows it in full."""
    if ending is None or ending.status != "error":
        return ending
    location = _location(item)
    first = item.config.stash.setdefault(FINDINGS, Findings()).first(ending.reason, location)
    if first == location:
        return ending
    return _Ending("error", in_one_line(ending.reason, first.test), first)


def _location(item: pytest.Item) -> Location:
    call = call_of(item)
    name = name_of(call.judged.id, call.case_id) if call.judged else item.nodeid
    owner = item.parent.nodeid if item.parent else ""
    return Location(owner, item.nodeid, name)


def _skipped(item: pytest.Item, error: BaseException) -> _Ending:
    if NOT_APPLICABLE in item.stash:
        return _Ending("na", item.stash[NOT_APPLICABLE])
    return _Ending("na" if isinstance(error, NotApplicable) else "skip", str(error))


def _taken_over(
    item: pytest.Item, report: pytest.TestReport, rows: list[dict[str, Any]]
) -> _Ending:
    """Gives a report the outcome of the rows that the test takes over."""
    worst = min(rows, key=lambda row: STATUSES.index(row["status"]))
    status, origin = worst["status"], worst[TAKEN_OVER]
    reason = f"{worst['reason']}\ntaken over from {origin['report']}, judged on {origin['date']}"
    if hasattr(report, "wasxfail"):  # the test that was replaced passed
        del report.wasxfail
    if status == "xfail":
        report.outcome, report.wasxfail = "skipped", reason
    elif status == "na":
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, reason)
    return _Ending(status, reason)


def _without_exception(item: pytest.Item, report: pytest.TestReport) -> _Ending | None:
    if report.failed:  # by another plugin
        return _Ending("error", str(report.longrepr))
    if report.when != "call":
        return None
    judge = item.stash.get(JUDGE, None)
    if judge is not None and judge.recorded_path is not None:
        return _Ending("recorded", "; ".join(judge.doubts))
    return _Ending("pass")


def _forget_fixed_failures(item: pytest.Item, report: pytest.TestReport, run: Run) -> None:
    """Lets pytest show a pass as a plain one if this engine has the fix of each known failure."""
    if report.outcome != "passed" or not hasattr(report, "wasxfail"):
        return
    failures = item.stash.get(EXPECTED_FAILURES, ())
    if failures and not any(failure.may_occur(run.vllm_version) for failure in failures):
        del report.wasxfail


def _must_fail(item: pytest.Item, run: Run) -> ExpectedFailure | None:
    """The failure that had to occur: one that the model declares, or that this engine has.

    Another known failure may be gone in this engine.
    """
    model, failures = call_of(item).model, item.stash.get(EXPECTED_FAILURES, ())
    declared = model.expected_failures if model is not None else ()
    for failure in failures:
        must = failure in declared and not failure.fixed_in
        if failure.was_seen(run.vllm_version) if failure.seen_in else must:
            return failure
    return None


def _passes(item: pytest.Item, expected: ExpectedFailure) -> str:
    model = call_of(item).model
    advice = (
        "Remove it from ModelSpec(expected_failures=...)."
        if model is not None and expected in model.expected_failures
        else f"It was seen in vLLM {expected.seen_in}. Report this pass to pytest-ascend-vlm."
    )
    return f"{expected.criterion} is expected to fail, but passes: {expected}. {advice}"


def _excuse(
    item: pytest.Item, report: pytest.TestReport, error: CriterionFailed | PromptDiffers, run: Run
) -> str | None:
    """Reason why a failure was expected, or None.

    A criterion's failure is expected only if the model or the criterion declares it; an `xfail`
    marker does not count. A degenerate answer (`NoAnswer`) and a comparison that another prompt
    prevents (`PromptDiffers`) are expected only if the declaration's `shows` matches them.
    """
    if isinstance(error, WrongEnding) or not hasattr(report, "wasxfail"):
        return None
    if call_of(item).criterion is None:
        return str(report.wasxfail)
    every = item.stash.get(EXPECTED_FAILURES, ())
    expected = [failure for failure in every if failure.may_occur(run.vllm_version)]
    must_name = isinstance(error, (NoAnswer, PromptDiffers))
    named = [failure for failure in expected if failure.shows or not must_name]
    return next((str(failure) for failure in named if failure.shows in str(error)), None)


def _rows(
    item: pytest.Item, ending: _Ending | None, judge: Judge | None, seconds: float
) -> list[dict[str, Any]]:
    call = call_of(item)
    criterion, model, cls = call.judged, call.model, call.suite_class
    if criterion is None or model is None or cls is None or ending is None:
        return []

    def row(end: _Ending, verdict: Verdict | None) -> dict[str, Any]:
        return Row(
            model=model.model_id,
            suite_class=cls.__name__,
            criterion=criterion.id,
            case=call.case_id,
            status=end.status,
            reason=end.reason,
            seconds=seconds,
            told_at=end.first.criterion if end.first else None,
            reference_knows=judge is None or judge.reference_knows,
        ).with_verdict(verdict)

    return [row(*pair) for pair in _endings(ending, judge.verdicts if judge else [])]


def _endings(ending: _Ending, verdicts: list[Verdict]) -> Iterator[tuple[_Ending, Verdict | None]]:
    """One ending per verdict, and one without a verdict if no verdict explains the ending."""
    passed = [verdict for verdict in verdicts if verdict.passed]
    yield from ((_Ending("pass"), verdict) for verdict in passed)
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:  # the first failing verdict ends a test
        yield ending, failed[0]
    elif ending.status != "pass" or not passed:
        yield ending, None


def _set_properties(item: pytest.Item, rows: list[dict[str, Any]]) -> None:
    """Gives JUnit XML the text of each verdict; without it, a pass has no text there."""
    of_earlier_tries = [one for one in item.user_properties if one[0] in {ROW, VERDICT}]
    for one in of_earlier_tries:
        item.user_properties.remove(one)
    for row_id, row in zip(row_ids(rows), rows, strict=True):
        item.user_properties += [(ROW, address(row_id)), (VERDICT, _told(row))]


def _told(row: dict[str, Any]) -> str:
    return f"{row['status']}: {told(row)}"


def _show(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, ending: _Ending
) -> None:
    """Makes the terminal, JUnit XML and other plugins show the same status as the rows."""
    if ending.status not in {"fail", "error"} or not _concerns_suite(item, call):
        return
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):  # an xfail marker that does not excuse this failure
        del report.wasxfail
    if ending.first is not None:
        setattr(report, REPORTED_AT, ending.first.test)
    own_error = call.excinfo is None or call.excinfo.errisinstance((VlmError, CriterionFailed))
    if own_error or ending.first is not None:
        report.longrepr = with_visible_controls(ending.reason)
    if ending.status == "error" and report.when == "call":
        report.when = "setup"  # pytest shows a failed set-up as ERROR, a failed call as FAILED


def _concerns_suite(item: pytest.Item, call: pytest.CallInfo[None]) -> bool:
    """True if a test judges, or ended with an exception of this package."""
    if call_of(item).judged is not None:
        return True
    return call.excinfo is not None and call.excinfo.errisinstance((VlmError, CriterionFailed))
