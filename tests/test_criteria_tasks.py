"""Rules of tasks.* and lifecycle.*: each accepts a right answer and refuses a wrong one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_ascend_vlm.criteria import lifecycle, tasks
from pytest_ascend_vlm.observation.shutdown import ShutdownReport

BOX = (28.0, 56.0, 112.0, 140.0)
SIZE = (392, 280)


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        (("North",), "The longest bar is **North**."),
        (("3", "three", "三"), "图中有3个方块。"),
        (("3", "three", "三"), "图中有三个方块"),
        (("3", "three"), "There are Three squares."),
        (("Pump Station 7",), "The sign says: Pump\nStation 7"),
        (("5",), "５"),
    ],
)
def test_a_right_answer_is_found_in_a_sentence(accepted: tuple[str, ...], answer: str) -> None:
    assert tasks.judge_question(accepted, answer, accepted[0]).passed


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        (("3",), "There are 13 squares."),
        (("3",), "There are 3x squares"),
        (("4", "5"), "9.5 seconds"),
        (("1",), "图中有2.1个"),
        (("300",), "1,300 boats"),
        (("1",), "1,300 boats"),
        (("North",), "The longest bar is Northern."),
        (("North",), "South"),
        (("三",), "图中有四个方块"),
        (("North",), ""),
    ],
)
def test_a_wrong_answer_is_no_pass_where_the_reference_is_right(
    accepted: tuple[str, ...], answer: str
) -> None:
    assert not tasks.judge_question(accepted, answer, accepted[0]).passed


@pytest.mark.parametrize(
    ("accepted", "answer"),
    [
        ("3", "3."),
        ("3", "3,5"),
        ("3", "图中有1，3，5"),
        ("3", "It is 3, not 300."),
        ("4.5", "at 4.5 s"),
        ("1,300", "1,300 boats"),
    ],
)
def test_a_number_is_found_among_others(accepted: str, answer: str) -> None:
    assert tasks.is_right((accepted,), answer)


def test_a_question_that_the_reference_cannot_answer_is_not_judged() -> None:
    assert tasks.unnamed_reason(("North", "Norden"), "East") == (
        "the reference does not name 'North' itself"
    )
    assert tasks.unnamed_reason(("North", "Norden"), "It is Norden.") is None


def test_a_verdict_about_an_answer_says_what_is_true() -> None:
    right = tasks.judge_question(("North",), "North", "It is North.")
    wrong = tasks.judge_question(("North",), "South", "It is North.")
    assert right.reason == "the answer names 'North', as the reference's does"
    assert wrong.reason == "the answer does not name 'North', which the reference's does"
    assert "the reference: 'It is North.'" in wrong.details
    alone = tasks.judge_question(("North",), "South", None)
    assert (alone.reason, alone.details) == ("the answer does not name 'North'", ("got: 'South'",))


@pytest.mark.parametrize(
    "answer",
    [
        '[{"bbox_2d": [28, 56, 112, 140], "label": "rectangle"}]',
        '```json\n[\n\t{"bbox_2d": [28.0, 56, 112, 140.0], "label": "矩形"}\n]\n```',
        "The box is (28,56,112,140).",
    ],
)
def test_a_box_is_read_in_the_forms_models_give_it(answer: str) -> None:
    assert tasks.read_box(answer, SIZE, None) == BOX


def test_thousandths_are_turned_into_pixels() -> None:
    answer = '{"bbox_2d": [71, 200, 286, 500]}'
    box = tasks.read_box(answer, SIZE, 1000)
    assert box == pytest.approx((27.8, 56.0, 112.1, 140.0), abs=0.05)
    assert tasks.iou(BOX, box) > 0.98
    assert tasks.iou(BOX, tasks.read_box(answer, SIZE, None)) < 0.1


@pytest.mark.parametrize("answer", ["", "no box", "[1, 2, 3]", "[a, b, c, d]"])
def test_an_answer_without_a_box_overlaps_nothing(answer: str) -> None:
    assert tasks.read_box(answer, SIZE, None) is None
    assert not tasks.judge_box(BOX, None, BOX, 0.5).passed


def test_a_box_has_to_reach_the_threshold_and_the_reference() -> None:
    shifted = (42.0, 56.0, 126.0, 140.0)  # half a patch to the right
    assert tasks.iou(BOX, shifted) == pytest.approx(70 / 98)
    assert tasks.judge_box(BOX, BOX, BOX, 0.5).passed
    # Above the threshold, but the reference's box is exact: the box has moved.
    assert not tasks.judge_box(BOX, shifted, BOX, 0.5).passed
    assert tasks.judge_box(BOX, shifted, shifted, 0.5).passed
    # A reference without a box does not lower the threshold.
    assert not tasks.judge_box(BOX, None, None, 0.5).passed


@pytest.mark.parametrize("golden", [None, (0.0, 0.0, 28.0, 56.0), (112.0, 56.0, 196.0, 140.0)])
def test_a_box_that_the_reference_misses_judges_nothing(golden: tasks.Box | None) -> None:
    problem = tasks.no_box_reason(BOX, golden, 0.5)
    assert problem == "the reference does not find the box itself: its IoU is 0, below 0.5"
    assert tasks.no_box_reason(BOX, BOX, 0.5) is None


@example((0.0, 0.0, 1e-200, 1e-200), (0.0, 0.0, 1e-200, 1e-200))
@given(st.tuples(*[st.floats(-1e4, 1e4)] * 4), st.tuples(*[st.floats(-1e4, 1e4)] * 4))
def test_overlap_is_a_share(one: tasks.Box, other: tasks.Box) -> None:
    assert 0.0 <= tasks.iou(one, other) <= 1.0 + 1e-9 or one[2] < one[0] or one[3] < one[1]


@given(st.text())
def test_no_answer_breaks_the_reader(answer: str) -> None:
    tasks.read_box(answer, SIZE, 1000)
    tasks.is_right(("3",), answer)


def test_a_clean_shutdown_passes() -> None:
    on_card = lifecycle.judge_shutdown(ShutdownReport((), 3000.0, 3100.0, 1.0))
    assert on_card.passed
    assert on_card.evidence["memory_before_mib"] == 3000.0
    without_cards = lifecycle.judge_shutdown(ShutdownReport((), None, None, 1.0))
    assert without_cards.passed
    assert without_cards.evidence["memory_after_mib"] is None


@pytest.mark.parametrize(
    ("remains", "named"),
    [
        (ShutdownReport(("pid 7 (VLLM::EngineCore)",), None, None, 1.0), "VLLM::EngineCore"),
        (ShutdownReport((), 3000.0, 31000.0, 30.0), "28000 MiB more than before"),
    ],
)
def test_survivors_and_kept_memory_are_named(remains: ShutdownReport, named: str) -> None:
    verdict = lifecycle.judge_shutdown(remains)
    assert not verdict.passed
    assert named in "\n".join(verdict.details)
