"""Rules of document.*: each rule detects its own kind of defect and no other."""

from __future__ import annotations

import itertools
import re

import pytest
from helpers.paths import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm.criteria import document as rules
from pytest_ascend_vlm.spec.case_files import load_cases
from pytest_ascend_vlm.spec.thresholds import READ_CER, TOLERANCE_AFTER_TIE

PAGE = "季度报告 2024\n收入 1,234.50 元\n增长 12.5%\n备注:无\nTotal 99"
LINES = st.lists(st.text(st.sampled_from("收入增长abc 123.5%"), max_size=12), max_size=6)
PAGES = st.one_of(LINES.map("\n".join), st.text(max_size=60))


@given(PAGES, PAGES)
def test_every_rate_is_a_rate(truth: str, read: str) -> None:
    for rate in (rules.order_rate, rules.line_recall, rules.number_recall):
        assert 0.0 <= rate(truth, read) <= 1.0
    assert rules.character_error_rate(truth, read) >= 0.0


@given(PAGES)
def test_a_page_read_exactly_has_no_errors(page: str) -> None:
    assert rules.character_error_rate(page, page) == 0.0
    assert rules.line_recall(page, page) == 1.0
    assert rules.number_recall(page, page) == 1.0


@given(PAGES)
def test_normalising_twice_changes_nothing_more(page: str) -> None:
    once = rules.normalise(page)
    assert rules.normalise(once) == once


def test_full_width_forms_and_white_space_do_not_count() -> None:
    assert rules.character_error_rate("收入 12%", "收入　１２％\n\n") == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("收入1,234.50元,增长12.5%", ["1,234.50", "12.5%"]),
        ("at 12:30, 3 times.", ["12:30", "3"]),
        ("２０２４年", ["2024"]),
        ("none", []),
    ],
)
def test_numbers_are_found_whole(text: str, expected: list[str]) -> None:
    assert rules.numbers(text) == expected


def test_swapped_lines_cost_order_and_no_line() -> None:
    lines = PAGE.split("\n")
    swapped = "\n".join([lines[1], lines[0], *lines[2:]])
    assert rules.order_rate(PAGE, swapped) == pytest.approx(0.9)
    assert rules.line_recall(PAGE, swapped) == 1.0
    assert rules.number_recall(PAGE, swapped) == 1.0


def test_a_lost_line_costs_every_pair_it_is_in() -> None:
    read = PAGE.rpartition("\n")[0]
    assert rules.order_rate(PAGE, read) == pytest.approx(6 / 10)
    assert rules.line_recall(PAGE, read) == pytest.approx(4 / 5)


def test_a_slightly_misread_line_keeps_its_place() -> None:
    assert rules.order_rate(PAGE, PAGE.replace("Total 99", "Tota1 99")) == 1.0


def test_a_wrong_digit_costs_a_number() -> None:
    read = PAGE.replace("1,234.50", "1,234.60")
    assert rules.number_recall(PAGE, read) == pytest.approx(3 / 4)
    assert not rules.judge_numbers(PAGE, read, PAGE, 0.02).passed


def test_a_number_read_twice_counts_once() -> None:
    assert rules.number_recall("7 and 8", "7 and 7") == 0.5


@pytest.mark.parametrize(
    "rule",
    [rules.judge_characters, rules.judge_lines, rules.judge_numbers, rules.judge_order],
)
def test_reading_better_than_the_golden_is_no_failure(rule: object) -> None:
    assert callable(rule)
    golden = "收入 9\n" + PAGE.rpartition("\n")[0]
    assert rule(PAGE, PAGE, golden, 0.0).passed
    assert not rule(PAGE, "x", PAGE, 0.02).passed


def test_what_was_not_read_is_named() -> None:
    verdict = rules.judge_lines(PAGE, PAGE.replace("备注:无\n", ""), PAGE, 0.02)
    assert "not read: '备注:无'" in verdict.details
    assert verdict.measured == pytest.approx(0.8)
    assert verdict.threshold == pytest.approx(0.98)


@pytest.mark.parametrize(
    "rule",
    [rules.judge_characters, rules.judge_lines, rules.judge_numbers, rules.judge_order],
)
@pytest.mark.parametrize(
    "golden",
    ["", "巴黎。", "qV7 zzk}}", "另一页完全不同的文字,与本页无关\nInvoice 7731 paid 88.20"],
    ids=["nothing", "a word", "noise", "another page"],
)
def test_a_golden_that_does_not_read_the_page_judges_nothing(rule: rules.Rule, golden: str) -> None:
    problem = rules.unread_reason(rule, PAGE, golden, 0.02)
    assert problem is not None
    assert problem.startswith("the reference does not read this page: its CER is ")
    assert rules.unread_reason(rule, PAGE, PAGE, 0.02) is None


def test_pages_that_have_nothing_to_do_with_each_other_do_not_read_each_other() -> None:
    pages = [case.truth for case in load_cases((FIXTURES,)) if case.group == "document"]
    assert len(pages) >= 10
    for one, other in itertools.permutations(pages, 2):
        assert rules.character_error_rate(one or "", other or "") > READ_CER + 0.15


def test_a_threshold_that_an_empty_answer_meets_is_not_used() -> None:
    without_numbers = re.sub(r"\d", "?", PAGE)
    problem = rules.unread_reason(rules.judge_numbers, PAGE, without_numbers, 0.02)
    assert problem is not None
    assert "rate of numbers read exactly" in problem
    assert rules.unread_reason(rules.judge_characters, PAGE, without_numbers, 0.02) is None
    # A page without numbers has no number to lose.
    assert (
        rules.unread_reason(rules.judge_numbers, without_numbers, without_numbers, 0.02) is not None
    )


@given(PAGES, PAGES)
def test_where_a_page_is_judged_an_empty_answer_fails(truth: str, golden: str) -> None:
    for rule in (
        rules.judge_characters,
        rules.judge_lines,
        rules.judge_numbers,
        rules.judge_order,
    ):
        if rules.unread_reason(rule, truth, golden, 0.02) is None:
            assert not rule(truth, "", golden, TOLERANCE_AFTER_TIE).passed


def test_an_error_of_the_golden_does_not_fail_the_server() -> None:
    golden = PAGE.replace("Total 99", "Total 98")
    assert rules.judge_characters(PAGE, golden, golden, 0.0).passed
    assert rules.judge_numbers(PAGE, golden, golden, 0.0).passed
