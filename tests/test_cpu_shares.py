"""The arithmetic of `benchmarks/cpu_shares.py`: shares, numbers of tokens, layers not built."""

from __future__ import annotations

from types import SimpleNamespace

import cpu_rounds
import cpu_shares
import pytest
from cpu_rounds import Cost
from cpu_shares import CLAIMED_SHARES, Stage, as_tokens, request_of, share_at, tokens_for
from mineru_geometry import LayerTimer

REQUEST = {
    cpu_shares.PREPROCESSING: Stage(1.0, 0.0),
    cpu_shares.VISION_ENCODER: Stage(70.0, 0.0),
    cpu_shares.TEXT_DECODING: Stage(9.0, 0.2),
    cpu_shares.POST_PROCESSING: Stage(0.0, 0.05),
}


def test_shares_are_of_the_whole_request_and_depend_on_the_answer() -> None:
    for tokens in (0, 80, 512):
        shares = [share_at(REQUEST, name, tokens) for name in REQUEST]
        assert sum(shares) == pytest.approx(1)
    assert share_at(REQUEST, cpu_shares.VISION_ENCODER, 80) == pytest.approx(70 / 100)
    assert share_at(REQUEST, cpu_shares.TEXT_DECODING, 80) == pytest.approx(25 / 100)


@pytest.mark.parametrize("name", [cpu_shares.VISION_ENCODER, cpu_shares.TEXT_DECODING])
def test_at_this_number_of_tokens_the_share_is_the_claimed_one(name: str) -> None:
    tokens = tokens_for(REQUEST, name, CLAIMED_SHARES[name])
    assert tokens > 0
    assert share_at(REQUEST, name, tokens) == pytest.approx(CLAIMED_SHARES[name])


def test_a_share_that_no_answer_has_is_said_to_have_no_number() -> None:
    tokens = tokens_for(REQUEST, cpu_shares.PREPROCESSING, 0.15)
    assert tokens < 0
    assert as_tokens((tokens, tokens - 1, tokens + 1)) == "no number of tokens"
    assert as_tokens((9.2, -0.4, 20.0)) == "9 tokens (0 to 20)"


def test_the_claimed_shares_are_of_one_request() -> None:
    assert sum(CLAIMED_SHARES.values()) == pytest.approx(1)
    assert CLAIMED_SHARES.keys() == REQUEST.keys()


def test_the_prefill_is_part_of_text_decoding() -> None:
    costs = {
        cpu_shares.PREPROCESSING: Cost(1.0, 2.0),
        cpu_shares.VISION_ENCODER: Cost(70.0, 140.0),
        cpu_shares.PREFILL: Cost(9.0, 18.0),
        cpu_shares.TOKEN: Cost(0.2, 0.4),
        cpu_shares.DETOKENISATION: Cost(0.05, 0.1),
    }
    assert request_of(costs, "wall") == REQUEST
    assert request_of(costs, "processor")[cpu_shares.TEXT_DECODING] == Stage(18.0, 0.4)


def test_layers_that_were_not_built_count_as_equal_to_those_that_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def work(seconds: float) -> float:
        nonlocal now
        now += seconds
        return seconds

    clock = SimpleNamespace(perf_counter=lambda: now, process_time=lambda: 2 * now)
    monkeypatch.setattr(cpu_rounds, "time", clock)
    built = [SimpleNamespace(forward=work) for _ in range(4)]
    timer = LayerTimer(built, 24)

    def run() -> None:
        assert [layer.forward(seconds) for layer, seconds in zip(built, (1, 2, 2, 3), strict=True)]
        work(5)  # the embedding and the output layer, of which there is one

    assert timer.cost(run) == Cost(24 * 2 + 5, 2 * (24 * 2 + 5))
    assert timer.cost(run) == Cost(24 * 2 + 5, 2 * (24 * 2 + 5))
