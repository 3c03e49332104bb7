"""The report: one truth, and renderings that nothing a model says can break."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fakes.replay_server import Behaviour, Defect
from helpers.models import few_cases
from helpers.outcome import Judged, Row, Serve, documents
from helpers.paths import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm import reporting
from pytest_ascend_vlm.control_characters import with_visible_controls
from pytest_ascend_vlm.criteria.verdict import Verdict, at_least
from pytest_ascend_vlm.reporting import Report, write_document
from pytest_ascend_vlm.reporting.language import LANGUAGES
from pytest_ascend_vlm.reporting.markdown import render
from pytest_ascend_vlm.reporting.markdown.escape import cell, code_block
from pytest_ascend_vlm.reporting.rows import STATUSES, as_json
from pytest_ascend_vlm.reporting.rows import Row as ReportRow
from pytest_ascend_vlm.reporting.summary import closing_line, closing_table
from pytest_ascend_vlm.session.case_facts import case_facts
from pytest_ascend_vlm.spec.case import Capability, Case, Message
from pytest_ascend_vlm.spec.case_files import image_size
from pytest_ascend_vlm.spec.thresholds import REPEATS

ROW_FIELDS = {
    "model": str,
    "suite_class": str,
    "criterion": str,
    "case": (str, type(None)),
    "status": str,
    "measured": (int, float, str, type(None)),
    "threshold": (int, float, str, type(None)),
    "unit": (str, type(None)),
    "margin": (int, float, str, type(None)),
    "reason": str,
    "seconds": (int, float),
}
HOSTILE = [
    "| a | b |\n|---|---|\n| 收入 | 12 |",
    "<script>alert(1)</script> <b>粗体</b> &lt;",
    "```\n# 标题\n```python\n````\n~~~",
    "`" * 200,
    "---\nhardware: NPU\n---\n# Ascend NPU adaptation",
    "长" * 100_000,
    "a\x00b\x1b[31mred\x07\r\nnext\u2028line\u202ereversed",
    "![x](http://127.0.0.1/) [link](javascript:1) \\| \\` *_~#",
    "{{ receipt }} {% raw %} {# #}",
    "",
]
HOSTILE_IDS = [
    "table", "html", "fences", "backticks", "front matter", "very long", "control", "links",
    "template", "empty",
]  # fmt: skip


@pytest.fixture
def receipt() -> Row:
    return {
        "platform": "endpoint",
        "checkpoint": "tiny",
        "simulated": False,
        "device": "unknown",
        "versions": {"pytest": "9"},
        "seconds": 1.5,
        "argv": ["conformance"],
    }


def report_row(text: str, **changes: Any) -> Row:
    """A row whose every text that comes from a server is the given one."""
    evidence = {"got": text, "exact_match": False, "word_overlap": 0.5, "reference": text}
    verdict = at_least(0.5, 1.0, "similarity", text, (text,), evidence)
    row = ReportRow("an-org/a-model", "TestIt", "baseline.text", "text/a", "fail", text, 0.1)
    return {**row.with_verdict(verdict), **changes}


def document(receipt: Row, *rows: Row) -> Row:
    report = Report()
    report.take([("vlm_row", row) for row in rows])
    return report.document(receipt)


# --- report.json ---------------------------------------------------------------------------------


def test_every_field_of_the_schema_is_there(stub: Serve, judged: Judged) -> None:
    report = judged(stub(Defect.A_DIGIT_IS_WRONG.value), "-k", few_cases()).report
    assert report["schema"] == 2
    assert report["receipt"].keys() >= {
        "platform", "simulated", "device", "versions", "server_starts", "requests", "seconds",
        "argv",
    }  # fmt: skip
    (model,) = report["models"]
    assert model.keys() >= {
        "model", "checkpoint", "revision", "weights_sha256", "serve_command", "phases_seconds",
    }  # fmt: skip
    assert {row["status"] for row in report["rows"]} >= {"pass", "fail", "xfail", "na"}
    for row in report["rows"]:
        for name, kind in ROW_FIELDS.items():
            assert isinstance(row[name], kind), (name, row)
        assert row["status"] in STATUSES
        assert bool(row["reason"]) == (row["status"] != "pass")
        if row["status"] in {"pass", "fail"}:
            assert isinstance(row["evidence"], dict)


def test_the_report_has_the_fields_of_the_published_schema(stub: Serve, judged: Judged) -> None:
    report = judged(stub(Defect.A_DIGIT_IS_WRONG.value), "-k", "page-01]").report
    schema = json.loads(
        resources.files(reporting).joinpath("report.schema.json").read_text("utf-8")
    )
    jsonschema.validate(report, schema)
    ((suite_class, test),) = report["receipt"]["tests"].items()
    assert suite_class == report["rows"][0]["suite_class"]
    assert re.fullmatch(rf"[\w/]*test_\w+\.py::{suite_class}", test)
    for part in (report, report["receipt"], report["models"][0], report["rows"][0]):
        part["unknown"] = 1
        with pytest.raises(jsonschema.ValidationError, match="unknown"):
            jsonschema.validate(report, schema)
        del part["unknown"]


def test_an_answer_is_there_with_its_request_and_where_it_parts(
    stub: Serve, judged: Judged
) -> None:
    report = judged(stub(Defect.A_DIGIT_IS_WRONG.value), "-k", "page-01]").report
    rows = {row["criterion"]: row for row in report["rows"]}
    (page,) = report["models"][0]["cases"].values()
    answered = {
        *("serving.image", "baseline.image", "baseline.divergence", "document.characters"),
        *("document.lines", "document.numbers", "document.order"),
    }
    assert answered == {name for name, row in rows.items() if "answer" in row.get("evidence", {})}
    answer = rows["baseline.image"]["evidence"]["answer"]
    assert all(rows[name]["evidence"]["answer"] == answer for name in answered)
    assert answer["finish_reason"] == "stop"
    assert answer["prompt_tokens"] > answer["output_tokens"] > 50
    evidence = rows["baseline.divergence"]["evidence"]
    texts = rows["determinism.repeat"]["evidence"]["texts"]
    assert texts == [evidence["got"]] * REPEATS
    parting = evidence["parting"]
    assert parting == rows["baseline.image"]["evidence"]["parting"]
    assert parting["reference"][0][0] in "0123456789"  # the text of a token, not its number
    assert parting["position"] == evidence["position"]
    assert page["truth"] == rows["document.characters"]["evidence"]["truth"]
    assert page["messages"][-1]["images"] == 1
    (image,) = page["images"]
    path = FIXTURES.parent / image["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == image["sha256"]
    assert (image["width"], image["height"]) == image_size(path)


def test_nothing_is_said_of_the_host_and_the_weights_of_an_endpoint(
    stub: Serve, judged: Judged
) -> None:
    report = judged(stub(), "-k", "text_is_answered and capital]").report
    (model,) = report["models"]
    assert "environment" not in report["receipt"]
    assert "unmodified" not in model
    assert (model["card"], model["in_registry"]) == (None, None)
    assert set(model["memory"].values()) == {None}
    assert model["supports"][:2] == ["text", "image"]
    assert set(model["supports"]).isdisjoint(model["unsupported"])
    assert len(model["supports"]) + len(model["unsupported"]) == len(Capability)


def test_two_deployments_of_one_model_have_facts_of_their_own(receipt: Row) -> None:
    report = Report()
    for name, command in (("TestIt", "vllm serve it"), ("TestTuned", "vllm serve it --tuned")):
        facts = {"model": "an-org/a-model", "suite_class": name, "serve_command": command}
        more = {"phases_seconds": {}, "revision": None, "weights_sha256": None}
        report.take([("vlm_model", {**facts, **more})])
        report.take([("vlm_row", report_row("读出全文", suite_class=name))])
    text = render(report.document(receipt), "en")
    for name, command in (
        ("TestIt", "--port 8000\n"),
        ("TestTuned", "--port 8000 \\\n  --tuned\n"),
    ):
        section = text.partition(f" — an-org/a-model ({name})\n")[2].partition("\n# ")[0]
        assert command in section


def test_a_case_is_a_fact_of_the_model_whose_rows_name_it(receipt: Row) -> None:
    report = Report()
    for name, case in (("TestIt", "text/a"), ("TestTuned", "text/b")):
        cases = {"text/a": {"group": "text"}, "text/b": {"group": "text"}}
        facts = {"model": "an-org/a-model", "suite_class": name, "cases": cases}
        report.take(
            [("vlm_model", facts), ("vlm_row", report_row("x", suite_class=name, case=case))]
        )
    models = report.document(receipt)["models"]
    assert [[*model["cases"]] for model in models] == [["text/a"], ["text/b"]]


def test_a_request_is_shown_with_the_places_of_its_images() -> None:
    one, two = (FIXTURES / "documents" / f"page-0{number}.png" for number in (1, 2))
    earlier = (
        Message("system", ("Be brief.",)),
        Message("user", (one, "What is this?")),
        Message("assistant", ("A page.",)),
    )
    between = Case("order/a", Capability.IMAGE, "First <image>then <image>", (one, two))
    last = dataclasses.replace(between, earlier=earlier, truth="the text")
    facts = case_facts(last, (FIXTURES,))
    assert facts["messages"] == [
        {"role": "system", "text": "Be brief.", "images": 0},
        {"role": "user", "text": "What is this?", "images": 1},
        {"role": "assistant", "text": "A page.", "images": 0},
        {"role": "user", "text": "First <image>then <image>", "images": 2},
    ]
    names = ["fixtures/documents/page-01.png"] * 2 + ["fixtures/documents/page-02.png"]
    assert [image["file"] for image in facts["images"]] == names
    assert (facts["group"], facts["truth"], facts["videos"]) == ("order", "the text", [])
    elsewhere = case_facts(last, ())
    assert [Path(image["file"]) for image in elsewhere["images"]] == [one, one, two]


def test_the_receipt_counts_what_was_served(stub: Serve, judged: Judged) -> None:
    receipt = judged(stub(), "-k", "text_is_answered").report["receipt"]
    texts = receipt["requests"]
    assert texts >= 5
    assert receipt["server_starts"] == 0
    assert receipt["platform"] == "endpoint"
    assert receipt["simulated"] is False


def test_a_measure_that_is_not_a_number_is_still_json(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(Defect.LOGPROBS_ARE_NAN.value), "-k", "logprobs and capital]")
    (row,) = outcome.rows
    assert row["status"] == "fail"
    text = (outcome.directory / "report.json").read_text("utf-8")
    assert "NaN" not in re.sub(r'"[^"]*"', "", text)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),
        st.binary(),
        st.complex_numbers(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.frozensets(st.integers(), max_size=3),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.floats()), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_anything_can_be_written_as_json(value: Any) -> None:
    text = json.dumps(as_json(value), allow_nan=False)
    assert json.loads(text) == as_json(value)


def test_numbers_that_json_has_not_are_named() -> None:
    assert as_json({"a": math.nan, "b": (math.inf, -math.inf)}) == {
        "a": "nan",
        "b": ["inf", "-inf"],
    }


def test_a_lone_surrogate_does_not_lose_the_report(tmp_path: Any, receipt: Row) -> None:
    report = Report()
    report.take([("vlm_row", as_json(report_row("broken \ud83d half")))])
    written = write_document(report.document(receipt), tmp_path)
    assert json.loads(written.paths[0].read_text("utf-8"))["rows"]


# --- Markdown ------------------------------------------------------------------------------------


@given(st.text())
def test_a_cell_never_leaves_its_cell(text: str) -> None:
    shown = cell(text)
    assert "\n" not in shown
    assert "\r" not in shown
    assert not re.search(r"[<>]", shown)
    unescaped = re.sub(r"\\.", "", shown)
    assert not re.search(r"[|`*_\[\]~#]", unescaped)


@given(st.text(st.sampled_from("`~ \na法"), max_size=60))
def test_a_fence_is_never_closed_by_what_it_holds(text: str) -> None:
    assert blocks(f"{code_block(text)}\n\nafter")[1] == ["", "after"]


@pytest.mark.parametrize("text", HOSTILE, ids=HOSTILE_IDS)
def test_a_code_block_holds_the_text_as_it_is(text: str) -> None:
    inside, outside = blocks(code_block(text))
    assert "\n".join(inside) == with_visible_controls(text)
    assert outside == []


@pytest.mark.parametrize("form", [cell, code_block])
def test_control_characters_are_visible(form: Callable[[str], str]) -> None:
    shown = form("a\x00\x1b]0;owned\x07\x9b31m\x7f\u202e法\u3000\t页")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown)
    for escape in (r"\x00", r"\x1b", r"\x07", r"\x9b", r"\x7f", r"\u202e"):
        assert escape in shown
    assert code_block("法\u3000\t页\n") == "```text\n法\u3000\t页\n\n```"


def blocks(markdown: str) -> tuple[list[str], list[str]]:
    """The lines inside fences and those outside, by the rules of CommonMark."""
    inside: list[str] = []
    outside: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        opened = re.match(r" {0,3}(`{3,})[^`]*$", line)
        closes = fence and re.fullmatch(rf" {{0,3}}`{{{len(fence)},}}\s*", line)
        if closes:
            fence = ""
        elif not fence and opened:
            fence = opened[1]
        else:
            (inside if fence else outside).append(line)
    assert not fence, "a fence was left open"
    return inside, outside


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", HOSTILE, ids=HOSTILE_IDS)
def test_nothing_a_model_says_changes_the_document(text: str, language: str, receipt: Row) -> None:
    harmless = render(document(receipt, report_row("x")), language)
    hostile = render(document(receipt, report_row(text)), language)
    assert headings(hostile) == headings(harmless)
    assert table_shapes(hostile) == table_shapes(harmless)
    shown = with_visible_controls(text).split("\n")
    assert "".join(shown) in "".join(blocks(hostile)[0])
    assert not re.search(r"<\w", "\n".join(blocks(hostile)[1]))


def headings(markdown: str) -> list[str]:
    return [line for line in blocks(markdown)[1] if line.startswith("#")]


def table_shapes(markdown: str) -> list[int]:
    """How many cells each line of a table has."""
    lines = [line for line in blocks(markdown)[1] if line.startswith("|")]
    return [len(re.findall(r"(?<!\\)\|", line)) for line in lines]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("status", STATUSES)
def test_every_status_can_be_rendered(status: str, language: str, receipt: Row) -> None:
    row = report_row("答案", status=status)
    bare = {**row, **dict.fromkeys(("measured", "threshold", "unit", "margin")), "case": None}
    del bare["evidence"]
    text = render(document(receipt, row, bare), language)
    assert "an-org/a-model" in text


def test_what_was_skipped_neither_holds_nor_fails(receipt: Row) -> None:
    text = render(document(receipt, report_row("答案", status="skip")), "en")
    assert "⏭️ 1 skipped" in text.splitlines()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_measures_that_are_not_numbers_can_be_rendered(
    value: str, language: str, receipt: Row
) -> None:
    row = report_row("x", measured=value, margin=value)
    assert render(document(receipt, row), language)
    assert closing_table([row])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("platform", "simulated"), [("cpu", False), ("endpoint", False), ("npu", True), ("cpu", True)]
)
def test_what_did_not_run_on_an_npu_cannot_be_mistaken_for_it(
    platform: str, simulated: bool, language: str, receipt: Row
) -> None:
    receipt |= {"platform": platform, "simulated": simulated}
    lines = render(document(receipt, report_row("x", status="pass")), language).strip().split("\n")
    assert lines[0].startswith("# ")
    assert {"en": "not an NPU result", "zh": "不是 NPU 结果"}[language] in lines[0]
    assert not any(line.startswith("hardware:") for line in lines)
    assert "---" not in lines


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_ran_on_an_npu_says_so_in_its_front_matter(language: str, receipt: Row) -> None:
    receipt |= {"platform": "npu"}
    text = render(document(receipt, report_row("x", status="pass")), language)
    assert text.startswith("---\nhardware: NPU\n")


def test_an_endpoint_is_named_as_one_to_the_last_line(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(), "-k", "models")
    for language in LANGUAGES:
        for text in documents(outcome.directory, language):
            assert text.lstrip().startswith("# ENDPOINT ")
            assert "hardware: NPU" not in text
    assert "platform endpoint, tiny checkpoints" in outcome.text
    assert "on a device that cannot be seen from here" in outcome.text.splitlines()[-1]


@pytest.mark.parametrize("text", HOSTILE[:-1], ids=HOSTILE_IDS[:-1])
def test_a_hostile_server_is_judged_like_any_other(text: str, stub: Serve, judged: Judged) -> None:
    hostile = Behaviour(answered=lambda _text, _request, _state: text[:1000])
    outcome = judged(stub(hostile), "-k", "text_matches and capital]")
    assert outcome.criteria("fail") == {"baseline.text"}
    for language in LANGUAGES:
        shown = "\n".join(documents(outcome.directory, language))
        assert not re.search(r"<\w", "\n".join(blocks(shown)[1]))
    assert "\x1b" not in outcome.text
    assert "\x00" not in outcome.text


# --- the closing lines ---------------------------------------------------------------------------


def rows_of(*statuses: str) -> list[Row]:
    return [
        report_row("why", criterion=f"serving.{index}", status=status)
        for index, status in enumerate(statuses)
    ]


@pytest.mark.parametrize(
    ("statuses", "line"),
    [
        (
            ("pass", "xfail", "na"),
            "1 of 2 criteria verified on here; 1 with expected failures; 1 not applicable",
        ),
        (("na", "na"), "0 of 0 criteria verified on here; 2 not applicable"),
        (("pass", "fail", "error"), "1 of 3 criteria verified on here; 1 fail, 1 error"),
        (("skip", "skip"), "0 of 2 criteria verified: why"),
        (("pass", "skip"), "1 of 2 criteria verified on here; 1 skip"),
    ],
)
def test_only_what_was_judged_counts_as_verified(statuses: tuple[str, ...], line: str) -> None:
    assert closing_line(rows_of(*statuses), "here") == line


@pytest.mark.parametrize(
    ("statuses", "line"),
    [
        (("pass", "fail"), "1 fail"),
        (("pass", "skip"), "1 skip"),
        (("xfail", "skip", "error"), "1 error"),
        (("skip", "error", "fail", "fail"), "1 fail"),
    ],
)
def test_one_bad_case_takes_its_whole_criterion(statuses: tuple[str, ...], line: str) -> None:
    rows = [report_row("why", status=one, case=f"text/{i}") for i, one in enumerate(statuses)]
    assert closing_line(rows, "here") == f"0 of 1 criteria verified on here; {line}"


def test_rows_come_in_the_order_of_their_places(receipt: Row) -> None:
    report = Report()
    for place in (3, 1, 2):
        row = report_row("x", criterion=f"serving.{place}", suite_class=f"Test{place}")
        facts = {"model": row["model"], "suite_class": row["suite_class"]}
        report.take([("vlm_row", row), ("vlm_model", facts)], (place,))
    shown = report.document(receipt)
    assert [row["criterion"] for row in shown["rows"]] == ["serving.1", "serving.2", "serving.3"]
    assert [model["suite_class"] for model in shown["models"]] == ["Test1", "Test2", "Test3"]


def test_two_classes_of_one_model_have_a_row_each_in_the_closing_table() -> None:
    rows = [
        report_row("x", suite_class="TestIt", status="pass"),
        report_row("x", suite_class="TestTuned", status="fail"),
        report_row("why not", suite_class="TestOther", status="na"),
    ]
    first, first_group, second, second_group, third = closing_table([*rows, rows[0]])
    assert (first, second) == ("TestIt (an-org/a-model)", "TestTuned (an-org/a-model)")
    assert "2 pass" in first_group
    assert "1 fail" in second_group
    assert third == "TestOther (an-org/a-model): not applicable: why not"


def test_the_worst_margin_is_relative_to_the_bar() -> None:
    near = report_row("x", criterion="a.near", margin=0.01, threshold=0.02, unit="CER")
    far = report_row("x", criterion="a.far", margin=0.1, threshold=10.0, unit="s")
    (_, line) = closing_table([near, far])
    assert "(a.far[text/a])" in line


def test_a_row_keeps_what_its_verdict_found() -> None:
    verdict = Verdict(True, 0.25, 0.5, "CER", "at most", "found", evidence={"k": (1, 2)})
    row = ReportRow("m", "T", "document.characters", None, "pass", "", 1.23456)
    stored = row.with_verdict(verdict)
    assert (stored["measured"], stored["threshold"], stored["margin"]) == (0.25, 0.5, 0.25)
    assert stored["evidence"] == {"k": [1, 2]}
    assert stored["seconds"] == 1.235
