"""Comparison of texts: properties of the similarities, and the display of a difference."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm.criteria.text import first_difference, side_by_side, similarity, word_overlap

# Chinese, Latin and white space in one text, as documents have them; and anything at all.
MIXED = st.text(st.sampled_from("法国的首都是巴黎。Paris 3.5%\n\t"), max_size=40)
ONE_LINE = st.text(st.sampled_from("法国的首都是巴黎。Paris 3.5%"), max_size=80)
TEXTS = st.one_of(MIXED, st.text(max_size=40))


@given(TEXTS, TEXTS)
def test_similarity_is_symmetric_and_bounded(left: str, right: str) -> None:
    assert similarity(left, right) == similarity(right, left)
    assert 0.0 <= similarity(left, right) <= 1.0


@given(TEXTS, TEXTS)
def test_similarity_is_one_only_of_equal_texts(left: str, right: str) -> None:
    assert (similarity(left, right) == 1.0) == (left == right)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("", "", 1.0),
        ("", "a", 0.0),
        ("法国的首都是巴黎。", "法国的首都是巴西。", 8 / 9),
        ("I'm your son", "I am your son", 11 / 13),
    ],
)
def test_similarity_is_one_less_the_share_of_edits(left: str, right: str, expected: float) -> None:
    assert similarity(left, right) == pytest.approx(expected)


@given(TEXTS, TEXTS)
def test_word_overlap_is_symmetric_and_bounded(left: str, right: str) -> None:
    assert word_overlap(left, right) == word_overlap(right, left)
    assert 0.0 <= word_overlap(left, right) <= 1.0
    assert word_overlap(left, left) == 1.0


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("the capital is Paris", "the capital is Lyon", 3 / 5),
        ("巴黎", "巴西", 1 / 3),
        ("one two", "three four", 0.0),
    ],
)
def test_word_overlap_counts_words_and_chinese_characters(
    left: str, right: str, expected: float
) -> None:
    assert word_overlap(left, right) == pytest.approx(expected)


@given(TEXTS, TEXTS)
def test_the_first_difference_is_where_the_common_beginning_ends(left: str, right: str) -> None:
    index = first_difference(left, right)
    if index is None:
        assert left == right
    else:
        assert left[:index] == right[:index]
        assert left[index : index + 1] != right[index : index + 1]


@given(TEXTS, TEXTS)
def test_what_is_shown_stays_in_its_lines(left: str, right: str) -> None:
    for line in side_by_side(left, right):
        assert line.isprintable()


@given(ONE_LINE, ONE_LINE)
def test_the_mark_is_under_the_first_difference(left: str, right: str) -> None:
    if left != right:
        assert_mark_is_right(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("法国的首都是巴黎。", "法国的首都是巴西。"),
        ("第一行\n第二行", "第一行\n第三行"),
        ("价格:¥12,共 3 件", "价格:¥12,共 8 件"),
        ("x" * 100 + "巴黎", "x" * 100 + "巴西"),
        ("巴" * 100 + "黎", "巴" * 100 + "西"),
        ("— “quoted” → 1", "— “quoted” → 2"),
        ("αβγ ½ é", "αβγ ½ e"),
        ("ドル カナ 한국 1", "ドル カナ 한국 2"),
        ("🙂 ok 1", "🙂 ok 2"),
        ("⟨a⟩ ① 1", "⟨a⟩ ① 2"),
    ],
)
def test_the_mark_is_in_the_right_terminal_column(left: str, right: str) -> None:
    assert_mark_is_right(left, right)


def assert_mark_is_right(left: str, right: str) -> None:
    """Asserts that the mark is right after the common beginning of both lines."""
    expected, got, mark = side_by_side(left, right)
    common = first_difference(expected.replace("expected: ", "     got: "), got)
    assert common is not None
    assert mark.index("^") == terminal_columns(got[:common])


def terminal_columns(text: str) -> int:
    """The width of a text in terminal columns (UAX 11)."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def test_a_text_that_ends_early_is_shown_as_ended() -> None:
    lines = side_by_side("巴黎。", "巴黎")
    assert lines[0].endswith("巴黎。")
    assert lines[1].endswith("巴黎⟨end⟩")
    assert "at character 3" in lines[2]


def test_control_characters_are_shown_escaped() -> None:
    lines = side_by_side("a\nb\x1b[31m\u202e", "a\nc\x1b[31m\u202e")
    assert "\\n" in lines[0]
    assert "\\x1b[31m\\u202e" in lines[0]


def test_of_a_long_text_only_the_surroundings_are_shown() -> None:
    lines = side_by_side("a" * 5000 + "b" * 5000, "a" * 5000 + "c" * 5000)
    assert max(len(line) for line in lines) < 100
    assert "at character 5001" in lines[2]
