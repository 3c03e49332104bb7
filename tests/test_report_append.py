"""`--vlm-report-append`: a run joins the report of the runs before it, or leaves it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.replay_server import Defect
from helpers.outcome import Judged, Outcome, Serve

APPEND = "--vlm-report-append"
CAPITAL = "text_is_answered and capital]"


def told(outcome: Outcome) -> list[tuple[Any, ...]]:
    """The rows without their durations and times."""
    names = ("suite_class", "criterion", "case", "status", "measured", "reason", "order")
    return [tuple(str(row[name]) for name in names) for row in outcome.rows]


def test_two_runs_appended_give_the_rows_of_one_run(stub: Serve, judged: Judged) -> None:
    url = stub()
    at_once = judged(url, "-k", f"models or unsupported or ({CAPITAL})")
    judged(url, "-k", "models or unsupported")
    both = judged(url, "-k", CAPITAL, APPEND)
    assert told(both) == told(at_once)
    receipt = both.report["receipt"]
    assert len(receipt["runs"]) == 2
    assert receipt["argv"] == receipt["runs"][0]["argv"]
    assert APPEND in receipt["runs"][1]["argv"]
    assert receipt["seconds"] == pytest.approx(sum(run["seconds"] for run in receipt["runs"]))
    assert "merged with the report in" in both.text


def test_a_later_verdict_replaces_an_earlier_one(stub: Serve, judged: Judged) -> None:
    behaviour = Defect.NAME_NOT_LISTED.value
    url = stub(behaviour)
    assert judged(url, "-k", "models or unsupported", APPEND).criteria("fail") == {"serving.models"}
    again = judged(url, "-k", "unsupported", APPEND)
    assert again.criteria("fail") == {"serving.models"}
    assert again.criteria("pass") == {"serving.unsupported"}
    assert ": 1 earlier results replaced" in again.text


def test_another_set_up_ends_the_run_before_its_first_test(stub: Serve, judged: Judged) -> None:
    url = stub()
    before = judged(url, "-k", "models").report
    refused = judged(url, "-k", "unsupported", APPEND, "--vlm-server-device=1 x 910B4")
    assert refused.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "this run does not fit the report in" in refused.result.stderr.str()
    assert "device: unknown, behind" in refused.result.stderr.str()
    assert refused.report == before


def test_a_run_that_turns_out_not_to_fit_has_a_report_of_its_own(
    stub: Serve, judged: Judged
) -> None:
    url = stub()
    first = judged(url, "-k", "models")
    path = first.directory / "report.json"
    other = first.report
    other["models"][0]["serve_command"] = "vllm serve it"
    path.write_text(json.dumps(other), "utf-8")
    refused = judged(url, "-k", "unsupported", APPEND)
    assert refused.result.ret == pytest.ExitCode.TESTS_FAILED
    assert refused.report == other
    assert "serve command: vllm serve it in" in refused.text
    (own,) = refused.directory.glob("not-merged-*/report.json")
    (row,) = json.loads(own.read_text("utf-8"))["rows"]
    assert row["criterion"] == "serving.unsupported"
    assert f"written: {own}" in refused.text


def test_a_damaged_report_is_told_before_the_first_test(
    stub: Serve, judged: Judged, project: pytest.Pytester
) -> None:
    url = stub()
    path = judged(url, "-k", "models").directory / "report.json"
    path.write_text(path.read_text("utf-8")[:1000], "utf-8")
    options = (f"--vlm-report={path.parent}", APPEND, "--vlm-checkpoint=tiny")
    result = project.runpytest_inprocess(f"--vlm-server-url={url}", *options, "-k", "unsupported")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{path} is not a report written by pytest*"])
    assert len(path.read_text("utf-8")) == 1000


def test_a_run_without_a_row_leaves_the_report(stub: Serve, judged: Judged) -> None:
    url = stub()
    before = judged(url, "-k", "models").report
    assert judged(url, "-k", "nothing_of_that_name", APPEND).report == before


def test_it_needs_a_directory(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(APPEND)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--vlm-report-append needs *; add --vlm-report=DIR*"])


def test_a_write_that_ends_half_way_leaves_the_report_before(
    stub: Serve, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stub()
    before = judged(url, "-k", "models")
    kept = {path.name: path.read_bytes() for path in before.directory.iterdir()}

    def full(self: Path, target: Path) -> None:  # noqa: ARG001
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    failed = judged(url, "-k", "unsupported", APPEND)
    assert failed.result.ret == pytest.ExitCode.TESTS_FAILED
    assert "the report could not be written to" in failed.text
    assert {path.name: path.read_bytes() for path in before.directory.iterdir()} == kept
