"""Rows of verdicts and exceptions, and agreement of all reports of a run."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fakes.replay_server import Behaviour, Defect, Refused, Request, State
from helpers.models import model_file
from helpers.outcome import Judged, Outcome, Serve

from pytest_ascend_vlm import reporting
from pytest_ascend_vlm.criteria.verdict import at_most
from pytest_ascend_vlm.reporting import Report
from pytest_ascend_vlm.reporting.language import LANGUAGES
from pytest_ascend_vlm.reporting.markdown import render
from pytest_ascend_vlm.reporting.origin import origin
from pytest_ascend_vlm.reporting.rows import STATUSES, Row
from pytest_ascend_vlm.reporting.step_summary import step_summary
from pytest_ascend_vlm.reporting.summary import closing_line
from pytest_ascend_vlm.spec.request_rows import BAD_INPUT, REQUEST_ROWS

GIGAPIXEL = "bad_input and gigapixel"


def statuses(outcome: Outcome) -> list[tuple[str, str]]:
    return [(row["criterion"], row["status"]) for row in outcome.rows]


# --- only the declared failure is expected -------------------------------------------------------


def dies_of_a_gigapixel() -> Behaviour:
    """A server with the known defect, whose engine dies of it."""

    def refuse(refused: Refused, state: State) -> Refused:
        state.is_broken = refused.kind == "image" or state.is_broken
        return Refused(500, refused.message, refused.kind)

    return Behaviour(refuse=refuse)


def test_the_known_defect_alone_is_expected(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.BAD_IMAGE_GIVES_500.value), "-k", GIGAPIXEL)
    assert statuses(outcome) == [("serving.bad_input", "xfail")]
    assert outcome.result.ret == 0


def test_an_engine_that_dies_of_it_is_not(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(dies_of_a_gigapixel()), "-k", GIGAPIXEL)
    assert statuses(outcome) == [("serving.bad_input", "fail")]
    assert outcome.result.ret == 1
    assert "the next good request: it got HTTP 500 after gigapixel-image" in outcome.text


def test_a_server_that_answers_nothing_has_refused_nothing(stub: Serve, judged: Judged) -> None:
    def crash(_request: Request, state: State) -> Refused:
        state.is_gone = True
        return Refused(500, "never sent: it hangs up", "dead")

    outcome = judged(stub(Behaviour(crash=crash)), "-k", GIGAPIXEL)
    assert statuses(outcome) == [("serving.bad_input", "error")]
    assert outcome.result.ret == 1
    assert "0 of 1 criteria verified" in outcome.text.splitlines()[-1]


CONTROLS = """
    def test_it(self, judge):
        from pytest_ascend_vlm import PreconditionError
        raise PreconditionError("it said \\x1b[2J\\u202eabc\\nand no more")
"""


def test_what_a_terminal_shows_has_no_commands_for_it(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    model_file(project, CONTROLS)
    text = judged(stub(), "-k", "test_it", "test_own_model.py").text
    assert "\x1b[2J" not in text
    assert r"it said \x1b[2J\u202eabc" in text
    assert "\nand no more" in text


XFAIL_ALL = """
TestOwn = pytest.mark.xfail(reason="whatever happens")(TestOwn)
"""


@pytest.mark.parametrize(
    ("defect", "status"),
    [(Defect.LOGPROBS_ARE_NOISY, "fail"), (Defect.PROMPT_LOGPROBS_ARE_DROPPED, "error")],
)
def test_a_marker_of_pytest_excuses_no_criterion(
    defect: Defect, status: str, project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, "    pass\n" + XFAIL_ALL)
    outcome = judged(stub(defect.value), "-k", "logprobs and capital]", "test_own_model.py")
    assert {found for _, found in statuses(outcome)} == {status}
    assert outcome.result.ret == 1


def test_what_is_no_answer_is_expected_only_by_name(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    expected = "(ExpectedFailure('baseline.text', 'style differs', 'none'),)"
    model_file(project, "    pass", expected_failures=expected)
    one = ("-k", "text_matches and capital]", "test_own_model.py")
    outcome = judged(stub(Defect.EXCLAMATION_MARKS.value), *one)
    assert statuses(outcome) == [("baseline.text", "fail")]
    assert "is degenerate" in outcome.rows[0]["reason"]
    assert statuses(judged(stub(Defect.TEXT_OFF_BY_ONE_TOKEN.value), *one))[0][1] == "xfail"


@pytest.mark.parametrize(
    ("shows", "status"), [("did not see the same input", "xfail"), ("another text", "error")]
)
def test_another_prompt_is_expected_only_by_name(
    shows: str, status: str, project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    expected = f"(ExpectedFailure('baseline.text', 'longer', 'none', shows='{shows}'),)"
    model_file(project, "    pass", expected_failures=expected)
    one = ("-k", "text_matches and capital]", "test_own_model.py")
    outcome = judged(stub(Defect.PROMPT_IS_LONGER.value), *one)
    assert statuses(outcome) == [("baseline.text", status)]


# --- not applicable is an exception type ---------------------------------------------------------

SKIPS = """
    def test_mine(self, judge):
        pytest.skip("not applicable: {}")
"""


def test_a_phrase_in_a_skip_is_no_declaration(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, SKIPS.format("nobody declared that"))
    outcome = judged(stub(), "-k", "mine", "test_own_model.py")
    assert statuses(outcome) == [("own.test_mine", "skip")]


# --- a row has the outcome, not the printed text -------------------------------------------------


def test_a_message_that_is_printed_once_is_whole_in_every_row(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.ENDLESS_LOOP.value), "-k", "text_is_answered and capital")
    reasons = outcome.reasons("serving.text")
    assert reasons
    assert not [reason for reason in reasons if "in full above" in reason]


TWO_VERDICTS = """
    def test_two(self, judge):
        from pytest_ascend_vlm.criteria.verdict import at_most
        judge(at_most(1, 2, "s", "the first"))
        judge(at_most(3, 2, "s", "the second"))
"""


def test_each_verdict_has_the_status_that_it_earned(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, TWO_VERDICTS)
    rows = judged(stub(), "-k", "test_two", "test_own_model.py").rows
    assert [(row["finding"], row["status"]) for row in rows] == [
        ("the first", "pass"),
        ("the second", "fail"),
    ]


NO_VERDICT = """
    def test_silent(self, judge):
        pass

    def test_caught(self, judge):
        from pytest_ascend_vlm.criteria.verdict import at_most
        with pytest.raises(AssertionError):
            judge(at_most(3, 2, "s", "too slow"))
"""


def test_a_test_that_judges_needs_a_verdict_and_keeps_it(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    model_file(project, NO_VERDICT)
    outcome = judged(stub(), "-k", "test_silent or test_caught", "test_own_model.py")
    found = {row["criterion"]: row["status"] for row in outcome.rows}
    assert found == {"own.test_silent": "error", "own.test_caught": "fail"}
    assert outcome.result.ret == 1


@pytest.mark.parametrize("sense", ["at least", "at most"])
def test_a_row_knows_its_sense_whatever_the_margin(sense: str) -> None:
    verdict = at_most(1.0, 1.0, "s", "exactly")
    if sense == "at least":
        verdict = type(verdict)(True, 1.0, 1.0, "s", "at least", "exactly")
    row = Row("m", "T", "serving.ready", None, "pass", "", 0.1).with_verdict(verdict)
    assert row["sense"] == sense


# --- JUnit ---------------------------------------------------------------------------------------


def test_junit_tells_an_error_of_the_set_up_from_a_failure(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    xml = project.path / "junit.xml"
    url = stub(Defect.PROMPT_LOGPROBS_ARE_DROPPED.value)
    judged(url, "-k", "logprobs and capital] or models", f"--junitxml={xml}")
    (suite,) = ET.parse(xml).getroot()  # noqa: S314
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    judged(stub(Defect.NAME_NOT_LISTED.value), "-k", "models", f"--junitxml={xml}")
    (suite,) = ET.parse(xml).getroot()  # noqa: S314
    assert (suite.get("errors"), suite.get("failures")) == ("0", "1")
    assert "vlm_" not in xml.read_text("utf-8")


def test_junit_has_the_text_of_each_verdict(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    xml = project.path / "junit.xml"
    asked = "models or unsupported or video_is_answered"
    outcome = judged(stub(Defect.NAME_NOT_LISTED.value), "-k", asked, f"--junitxml={xml}")
    root = ET.parse(xml).getroot()  # noqa: S314
    told = {
        test.get("name", "").partition("[")[0]: verdict
        for test in root.iter("testcase")
        for verdict in verdicts_in(test)
    }
    (failure,) = root.iter("failure")
    assert failure.text == outcome.reasons("serving.models")[0]
    required = "at least 1 is required)"
    assert told == {
        "test_models_are_listed": "fail: 1 of 2 checks failed: served name listed "
        f"(measured 0.5 rate, {required}",
        "test_unsupported_is_refused": f"pass: all 2 checks passed (measured 1 rate, {required}",
        "test_video_is_answered": "na: video is declared unsupported: documents only",
    }


def verdicts_in(element: ET.Element) -> list[str]:
    named = (one for one in element.iter("property") if one.get("name") == "verdict")
    return [one.get("value", "") for one in named]


def test_junit_has_the_address_of_each_row_on_the_page(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    xml = project.path / "junit.xml"
    report = judged(stub(), "-k", "capital] and text or models", f"--junitxml={xml}").report
    named = {
        one.get("value", "")
        for one in ET.parse(xml).getroot().iter("property")  # noqa: S314
        if one.get("name") == "row"
    }
    page = (project.path / "report" / "report.html").read_text("utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    on_the_page = {row["id"] for row in json.loads(data)["rows"]}
    assert {unquote(one) for one in named} == on_the_page
    assert len(named) == len(report["rows"])
    assert "TestMinerU25%3A%3Aserving.text%5Btext%2Fcapital%5D" in named


def test_a_pass_says_its_finding_to_plugins_that_show_the_log(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    # As Allure's plugin does.
    project.makeconftest("""
        from pathlib import Path

        def pytest_runtest_logreport(report):
            if report.when == "teardown":
                Path("log.txt").write_text(report.caplog, "utf-8")
    """)
    judged(stub(), "-k", "models")
    told = (project.path / "log.txt").read_text("utf-8")
    assert told.startswith("pass: all 2 checks passed (measured 1 rate, ")


def test_each_try_of_a_test_has_one_verdict_in_junit(
    project: pytest.Pytester, stub: Serve, judged: Judged
) -> None:
    xml = project.path / "junit.xml"
    arguments = ("-k", "models", "--reruns=1", f"--junitxml={xml}")
    judged(stub(Defect.NAME_NOT_LISTED.value), *arguments)
    assert len(verdicts_in(ET.parse(xml).getroot())) == 2  # noqa: S314


# --- GitHub's step summary -----------------------------------------------------------------------


def test_the_step_summary_gets_the_table_and_the_failures(
    stub: Serve, judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", "utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    outcome = judged(stub(Defect.NAME_NOT_LISTED.value), "-k", "models or unsupported")
    lines = summary.read_text("utf-8").splitlines()
    assert lines[:2] == ["before", "### ascend-vlm"]
    assert "1 of 2 criteria verified" in lines[3]
    (row,) = (line for line in lines if line.startswith("| TestMinerU25"))
    assert "| serving | 1 fail, 1 pass |" in row
    text = "\n".join(lines)
    assert outcome.reasons("serving.models")[0] in text
    assert "serving.models `report.html#TestMinerU25%3A%3Aserving.models`" in text
    assert "artifacts" not in text


def test_the_step_summary_links_the_artifacts_of_its_run(
    stub: Serve, judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    for name, value in {
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_SERVER_URL": "https://github.example",
        "GITHUB_REPOSITORY": "an-org/a-repository",
        "GITHUB_RUN_ID": "7",
    }.items():
        monkeypatch.setenv(name, value)
    judged(stub(), "-k", "models")
    place = "https://github.example/an-org/a-repository/actions/runs/7#artifacts"
    assert f"report.html is in the [artifacts]({place})" in summary.read_text("utf-8")


def test_without_a_page_the_step_summary_has_no_address() -> None:
    bad = Row("m", "T", "serving.text", None, "fail", "why", 0.1).with_verdict(None)
    text = step_summary([bad], "the last line", has_page=False, place="https://github.example")
    assert "why" in text
    assert "report.html" not in text


def test_a_step_summary_that_cannot_be_written_costs_no_run(
    stub: Serve, judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    outcome = judged(stub(), "-k", "models")
    assert outcome.result.ret == 0
    assert f"GITHUB_STEP_SUMMARY={tmp_path} could not be written: Is a directory" in outcome.text


def test_the_terminal_counts_it_as_an_error(stub: Serve, judged: Judged) -> None:
    url = stub(Defect.PROMPT_LOGPROBS_ARE_DROPPED.value)
    judged(url, "-k", "logprobs and capital]").result.assert_outcomes(
        errors=1, deselected=pytest.approx(0, abs=10**6)
    )


# --- the origin of the evidence ------------------------------------------------------------------

NPU = {"platform": "npu", "simulated": False}


def row(criterion: str, status: str) -> dict[str, Any]:
    return {"criterion": criterion, "status": status}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "nothing"),
        ([row("serving.text", "skip")], "nothing"),
        ([row("serving.text", "na"), row("serving.image", "error")], "nothing"),
        ([row("reference.replay", "pass")], "reference"),
        ([row("reference.replay", "recorded")], "reference"),
        ([row("reference.replay", "pass"), row("serving.text", "skip")], "reference"),
        ([row("own.test_mine", "pass")], "nothing"),
        ([row("serving.text", "fail")], "npu, nothing verified"),
        ([row("serving.text", "xfail")], "npu, nothing verified"),
        ([row("serving.text", "pass"), row("serving.image", "fail")], "npu"),
    ],
)
def test_only_what_passed_on_an_npu_is_an_npu_result(
    rows: list[dict[str, Any]], expected: str
) -> None:
    assert origin(NPU, rows) == expected
    simulated = origin({**NPU, "simulated": True}, rows)
    assert simulated == ("simulated" if expected.startswith("npu") else expected)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("status", ["pass", "recorded"])
def test_the_reference_alone_prints_no_npu_document(status: str, language: str) -> None:
    one = Row("an-org/a-model", "TestIt", "reference.replay", "text/a", status, "", 0.1)
    report = Report()
    report.take([("vlm_row", one.with_verdict(None))])
    receipt = {**NPU, "checkpoint": "full", "device": "8 x 910B4", "versions": {}, "seconds": 1.0}
    text = render(report.document({**receipt, "argv": []}), language)
    assert_no_npu_document(text, language)
    assert "910B4" not in text


@pytest.mark.skipif(any(Path("/dev").glob("davinci[0-9]*")), reason="this machine has an NPU")
def test_a_run_in_which_all_was_skipped_prints_no_npu_document(judged: Judged) -> None:
    outcome = judged(None, "-k", "models")
    assert outcome.report["receipt"]["origin"] == "nothing"
    for language in LANGUAGES:
        assert_no_npu_document(render(outcome.report, language), language)


def assert_no_npu_document(text: str, language: str) -> None:
    assert "hardware: NPU" not in text
    first = text.strip().split("\n")[0]
    assert {"en": "not an NPU result", "zh": "不是 NPU 结果"}[language] in first


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_headline_of_a_model_counts_what_did_not_pass(
    language: str, stub: Serve, judged: Judged
) -> None:
    report = judged(stub(), "-k", "bad_input or video_is_answered").report
    passed = f"✅ {len(REQUEST_ROWS[BAD_INPUT]) - 1} "  # not the gigapixel image
    headline = next(line for line in render(report, language).splitlines() if passed in line)
    assert "⚠️ 1 " in headline
    assert "N/A 1 " in headline


def test_the_schema_lists_what_there_is() -> None:
    schema = json.loads(
        resources.files(reporting).joinpath("report.schema.json").read_text("utf-8")
    )["properties"]
    assert set(schema["rows"]["items"]["properties"]["status"]["enum"]) == set(STATUSES)


def test_the_closing_line_counts_the_reference_apart() -> None:
    rows = [
        Row("m", "T", criterion, None, status, "why", 0.1).with_verdict(None)
        for criterion, status in [("serving.text", "skip"), ("reference.replay", "pass")]
    ]
    told = "0 of 1 criteria verified: why; and 1 of 1 criteria verified on the CPU reference"
    assert closing_line(rows, "the NPU") == told


def test_a_skip_hides_no_failure_in_the_closing_line() -> None:
    rows = [
        Row("m", "T", criterion, None, status, "why", 0.1).with_verdict(None)
        for criterion, status in [("serving.text", "skip"), ("serving.image", "fail")]
    ]
    assert closing_line(rows, "here") == "0 of 2 criteria verified on here; 1 skip, 1 fail"


def test_a_reply_that_is_no_completion_is_the_models_failure(stub: Serve, judged: Judged) -> None:
    empty = Behaviour(reply=lambda answer: {**answer, "choices": []})
    outcome = judged(stub(empty), "-k", "text_is_answered and capital]")
    assert statuses(outcome) == [("serving.text", "fail")]
    assert "no completion" in outcome.text
