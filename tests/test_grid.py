"""grid.cliffs: which numbers of requests are asked, what is a cliff, and how it is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import pytest
from fakes.replay_server import Behaviour, Defect, Request, State
from helpers.outcome import Judged, Serve

from pytest_ascend_vlm.criteria.grid import judge_cliffs
from pytest_ascend_vlm.observation.grid import Burst, GridRow
from pytest_ascend_vlm.reporting.heat_map import heat_map
from pytest_ascend_vlm.session.grid import levels

LEVELS = (1, 2, 3, 4, 6)
MAXIMUM = 1.5


def row(seconds_of: Callable[[int, int], float], rounds: int = 6) -> GridRow:
    """A row of a grid.

    Args:
        seconds_of: (round, number of requests) -> the seconds of their burst.
        rounds: number of rounds.
    """
    found = tuple(
        {
            level: Burst(seconds_of(number, level), tuple([seconds_of(number, level) / 2] * level))
            for level in LEVELS
        }
        for number in range(rounds)
    )
    return GridRow(448, 300, found)


@pytest.mark.parametrize(
    "seconds_of",
    [
        lambda _, level: float(level),  # one after another
        lambda _, _level: 1.0,  # all for the time of one
        lambda _, level: 4.0 if level == 3 else float(level),  # padded to a power of two
        lambda _, level: 40.0 if level == 6 else float(level),  # the last one has one neighbour
        lambda number, level: level * (10.0 if number == level else 1.0),  # moments of the host
    ],
    ids=["in turns", "together", "padded", "end", "noise"],
)
def test_no_cliff(seconds_of: Callable[[int, int], float]) -> None:
    assert judge_cliffs(row(seconds_of), MAXIMUM).passed


def test_a_cliff_is_named_with_both_neighbours() -> None:
    verdict = judge_cliffs(row(lambda _, level: level * (3.0 if level == 3 else 1.0)), MAXIMUM)
    assert not verdict.passed
    assert verdict.measured == pytest.approx(3.0)
    assert "the slowest beside its neighbours is 3" in verdict.reason
    assert "448 x 300" in verdict.reason
    assert verdict.details == (
        "3 at once divided by 2: 3 (3 to 3, 6 pairs)",
        "3 at once divided by 4: 3 (3 to 3, 6 pairs)",
    )
    grid = verdict.evidence["grid"]
    assert grid["levels"] == list(LEVELS)
    assert grid["request_throughput"][1:3] == pytest.approx([1.0, 1 / 3])
    assert grid["ttft_s"][2] == pytest.approx(4.5)


def test_fewer_rounds_than_an_interval_needs_show_no_cliff() -> None:
    steep = row(lambda _, level: level * (9.0 if level == 3 else 1.0), rounds=5)
    assert judge_cliffs(steep, MAXIMUM).measured == 0


@pytest.mark.parametrize(
    ("serve", "numbers"),
    [
        ({}, (1, 2, 3, 4, 6, 8, 12, 16)),
        ({"max_num_seqs": 8}, (1, 2, 3, 4, 6, 8)),
        ({"max_num_seqs": 2}, (1, 2)),
    ],
)
def test_numbers_end_at_what_the_server_computes_at_once(
    serve: dict[str, object], numbers: Sequence[int]
) -> None:
    assert levels(serve) == numbers


# --- through the suite ---------------------------------------------------------------------------


def slow_in_threes(text: str, _request: Request, state: State) -> str:
    """Answers slowly if it has three requests."""
    time.sleep(0.4)  # the other requests of the burst arrive meanwhile, on a busy host too
    are_three = state.in_flight == 3
    time.sleep(3.0 if are_three else 0.4)  # and none has left
    return text


def together(text: str, _request: Request, _state: State) -> str:
    time.sleep(0.8)
    return text


def of_448(judged: Judged, url: str) -> dict[str, object]:
    """The row of an image of 448 pixels."""
    (found,) = judged(url, "-m", "grid", "-k", "cliff and 448").rows
    return found


def test_a_grid_is_measured_only_where_it_is_named(judged: Judged, stub: Serve) -> None:
    rows = judged(stub(), "-k", "models or cliff").rows
    assert {found["criterion"] for found in rows} == {"serving.models"}


@pytest.mark.catches("grid.cliffs")
def test_a_planted_cliff_is_caught(judged: Judged, stub: Serve) -> None:
    sound = of_448(judged, stub(Behaviour(answered=together)))
    assert sound["status"] == "pass", sound["reason"]
    cliff = of_448(judged, stub(Behaviour(answered=slow_in_threes)))
    assert cliff["status"] == "fail"
    assert "the slowest beside its neighbours is 3" in str(cliff["reason"])


def test_answers_of_another_length_are_not_compared(judged: Judged, stub: Serve) -> None:
    found = of_448(judged, stub(Defect.USAGE_HIDES_AN_ANSWERS_END.value))
    assert found["status"] == "error"
    assert "tokens instead of 8" in str(found["reason"])


# --- the heat map --------------------------------------------------------------------------------


def test_a_heat_map_has_a_cell_for_each_number() -> None:
    svg = heat_map("<TTFT> & 模型", ["1", "2"], {"448": [0.1, 0.4], "896": [0.2]})
    root = ElementTree.fromstring(svg)  # noqa: S314
    cells = [node for node in root.iter() if node.get("class") == "cell"]
    assert len(cells) == 3
    assert len({cell.get("fill") for cell in cells}) == 3
    texts = [node.text for node in root.iter() if node.text]
    assert {"<TTFT> & 模型", "1", "2", "448", "896", "0.1", "0.4", "0.2"} == set(texts)
    assert "&lt;TTFT&gt;" in svg


def test_a_large_number_of_a_heat_map_has_no_exponent() -> None:
    assert ">1270<" in heat_map("requests a second", ["1"], {"448": [1270.0]})


def test_a_heat_map_of_zeros_is_drawn() -> None:
    assert 'class="cell"' in heat_map("none", ["1"], {"448": [0.0]})
