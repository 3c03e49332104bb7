"""From a test's end to the report's rows and to what a reader is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ..criteria.verdict import Verdict
from ..errors import CriterionFailed, NoAnswer, VlmError
from ..reporting.rows import Row, as_json, name_of
from ..session.judge import Judge, NotApplicable
from ..session.run import Run
from .criterion_call import call_of
from .findings import FINDINGS, TOLD_AT, Findings, Location, in_one_line
from .fixtures import JUDGE
from .selection import EXPECTED_FAILURES, NOT_APPLICABLE

EVIDENCE = "ascend_vlm"
"""The attribute of a test's report that carries its rows; xdist takes it to the controller."""


@dataclass(frozen=True)
class _Ending:
    """How a phase of a test ended.

    Attributes:
        status: the row's status.
        reason: why it is not a pass.
        first: the test that has an error in full, where that is another one.
    """

    status: str
    reason: str = ""
    first: Location | None = None


def explain_collection(report: pytest.CollectReport) -> pytest.CollectReport:
    """A mistake in a model file is shown as its message instead of a traceback."""
    call = getattr(report, "call", None)
    if call is not None and call.excinfo is not None and call.excinfo.errisinstance(VlmError):
        report.longrepr = str(call.excinfo.value)
    return report


def finish(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, run: Run
) -> pytest.TestReport:
    """Attaches the rows that the report is made of, then shapes what is shown."""
    judge = item.stash.get(JUDGE, None)
    ending = _told_once(item, _ending(item, call, report, judge))
    rows = _rows(item, ending, judge if call.when == "call" else None, report.duration)
    servers = [as_json(facts.as_json()) for facts in run.take_server_facts()]
    setattr(
        report,
        EVIDENCE,
        [*(("vlm_row", row) for row in rows), *(("vlm_model", facts) for facts in servers)],
    )
    if ending is not None:
        _show(item, call, report, ending)
    return report


def status(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """How the terminal counts a test that does not apply: no skip, and no letter of hundreds."""
    evidence = getattr(report, EVIDENCE, ())
    if {row["status"] for name, row in evidence if name == "vlm_row"} != {"na"}:
        return None
    return "not applicable", "", "NOT APPLICABLE"


def _ending(
    item: pytest.Item,
    call: pytest.CallInfo[None],
    report: pytest.TestReport,
    judge: Judge | None,
) -> _Ending | None:
    """What a phase settles, told from the verdict or the exception; None where it is nothing."""
    if call.excinfo is None:
        return _without_exception(item, report, judge)
    error = call.excinfo.value
    if isinstance(error, pytest.skip.Exception):
        return _skipped(item, error)
    if isinstance(error, CriterionFailed):
        excuse = _excuse(item, report, error)
        return _Ending("fail", str(error)) if excuse is None else _Ending("xfail", excuse)
    if isinstance(error, VlmError):
        return _Ending("error", str(error))
    is_own = call_of(item).criterion is None  # a plain assert of a user's own is about the model
    status = "fail" if is_own and isinstance(error, AssertionError) else "error"
    return _Ending(status, call.excinfo.exconly())


def _told_once(item: pytest.Item, ending: _Ending | None) -> _Ending | None:
    """Of an error that stops many tests, as a failed start does, one line for all but the first."""
    if ending is None or ending.status != "error":
        return ending
    location = _location(item)
    first = item.config.stash.setdefault(FINDINGS, Findings()).first(ending.reason, location)
    if first == location:
        return ending
    return _Ending("error", in_one_line(ending.reason, first), first)


def _location(item: pytest.Item) -> Location:
    judge, call = item.stash.get(JUDGE, None), call_of(item)
    name = call.name
    if name is None and judge is not None:
        name = name_of(judge.criterion.id, call.case_id)
    owner = item.parent.nodeid if item.parent else ""
    return Location(owner, item.nodeid, name or item.nodeid)


def _skipped(item: pytest.Item, error: BaseException) -> _Ending:
    if NOT_APPLICABLE in item.stash:
        return _Ending("na", item.stash[NOT_APPLICABLE])
    return _Ending("na" if isinstance(error, NotApplicable) else "skip", str(error))


def _without_exception(
    item: pytest.Item, report: pytest.TestReport, judge: Judge | None
) -> _Ending | None:
    if report.failed and (expected := item.stash.get(EXPECTED_FAILURES, ())):
        return _Ending(
            "fail",
            f"{expected[0].criterion} is expected to fail, but passes: {expected[0]}. "
            "Take it out of ModelSpec(expected_failures=...).",
        )
    if report.failed:  # by another plugin
        return _Ending("error", str(report.longrepr))
    if report.when != "call":
        return None
    if judge is None and call_of(item).criterion is None:
        return _Ending("pass")
    return _judged(item, judge)


def _judged(item: pytest.Item, judge: Judge | None) -> _Ending:
    """How a test that judges, and ran to its end, ended."""
    if judge is not None and judge.recorded_path is not None:
        return _Ending("recorded", "; ".join(judge.doubts))
    verdicts = judge.verdicts if judge else []
    if not verdicts:
        return _Ending("error", f"{item.nodeid} ended without a verdict, so it verified nothing.")
    if missed := [verdict for verdict in verdicts if not verdict.passed]:
        return _Ending("fail", f"{missed[0].reason}: this verdict fails, and the test caught that.")
    return _Ending("pass")


def _excuse(item: pytest.Item, report: pytest.TestReport, error: CriterionFailed) -> str | None:
    """Why a failure was expected, or None. Of a criterion only what is declared of it counts.

    What is no answer at all is expected only where the declaration names it.
    """
    if not hasattr(report, "wasxfail"):
        return None
    if call_of(item).criterion is None:
        return str(report.wasxfail)
    expected = item.stash.get(EXPECTED_FAILURES, ())
    named = [failure for failure in expected if failure.shows or not isinstance(error, NoAnswer)]
    return next((str(failure) for failure in named if failure.shows in str(error)), None)


def _rows(
    item: pytest.Item, ending: _Ending | None, judge: Judge | None, seconds: float
) -> list[dict[str, Any]]:
    call = call_of(item)
    criterion, model, cls = call.criterion, call.model, call.suite_class
    if criterion is None and (judge := item.stash.get(JUDGE, None)) is not None:
        criterion = judge.criterion  # a test of the user's own that judges
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
    """One ending for each verdict, and one without where none of them explains how it ended."""
    held = [verdict for verdict in verdicts if verdict.passed]
    yield from ((_Ending("pass"), verdict) for verdict in held)
    broken = [verdict for verdict in verdicts if not verdict.passed]
    if broken:  # the first one that is not met ends a test
        yield ending, broken[0]
    elif ending.status != "pass" or not held:
        yield ending, None


def _show(
    item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport, ending: _Ending
) -> None:
    """Makes the terminal, JUnit and every other plugin tell the same story as the rows."""
    if ending.status not in {"fail", "error"} or not _is_ours(item, call):
        return
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):  # an xfail that excuses nothing
        del report.wasxfail
    if ending.first is not None:
        setattr(report, TOLD_AT, ending.first.test)
    ours = call.excinfo is None or call.excinfo.errisinstance((VlmError, CriterionFailed))
    if ours or ending.first is not None:
        report.longrepr = ending.reason
    if ending.status == "error" and report.when == "call":
        report.when = "setup"  # pytest's word for an error, which a failure is not


def _is_ours(item: pytest.Item, call: pytest.CallInfo[None]) -> bool:
    """Whether a test judges, or what it ended with is this package's own."""
    if call_of(item).criterion is not None or JUDGE in item.stash:
        return True
    return call.excinfo is not None and call.excinfo.errisinstance((VlmError, CriterionFailed))
