"""The rule that a client's times agree with the server's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_ascend_vlm.criteria import performance as rules
from pytest_ascend_vlm.criteria.agreement import compared
from pytest_ascend_vlm.errors import PreconditionError
from pytest_ascend_vlm.observation.load import Load, Timing


def load(ttft: float, latency: float, concurrency: int = 1) -> Load:
    """Two answers of 101 tokens of a server that needs 20 ms for the first and 200 ms for all."""
    timing = Timing("text/sum", "第一行 第二行", 300, 101, ttft, latency)
    return Load(
        "a generator",
        concurrency,
        2.0,
        (timing, timing),
        server_seconds={
            "queue": 0.0,
            "prefill": 0.01,
            "ttft": 0.02,
            "decode": 0.18,
            "latency": 0.2,
        },
        server_requests=2,
        wire_seconds=0.005,
    )


AGREES = "the server's own times agree: "


@pytest.mark.parametrize(
    ("ttft", "latency"),
    [(0.02, 0.2), (0.025, 0.205), (0.033, 0.215), (0.02, 0.24), (0.018, 0.19)],
    ids=["equal", "the wire", "a character of three tokens", "20 % and the wire", "a bit less"],
)
def test_what_the_wire_explains_agrees(ttft: float, latency: float) -> None:
    assert compared("text", load(ttft, latency)).startswith(AGREES)


@pytest.mark.parametrize(
    ("ttft", "latency", "named"),
    [
        (0.194, 0.205, "TTFT 194 ms (server: 20 ms), latency 205 ms (server: 200 ms), TPOT 0.11 "),
        (0.02, 0.3, "latency 300 ms (server: 200 ms), TPOT 2.8 ms (server: 1.8 ms)"),
        (0.05, 0.23, "TTFT 50 ms (server: 20 ms)"),
        (0.02, 0.05, "latency 50 ms (server: 200 ms)"),
    ],
    ids=["in one burst", "slow pieces", "a late first piece", "shorter than the server's"],
)
def test_what_it_does_not_explain_is_an_error_with_both_figures(
    ttft: float, latency: float, named: str
) -> None:
    with pytest.raises(PreconditionError, match=r"^load\.c1: ") as raised:
        compared("load.c1", load(ttft, latency))
    assert named in str(raised.value)
    for place in ("CPU", "another session", "proxy that buffers"):
        assert place in str(raised.value)


def test_requests_at_one_time_wait_for_each_other_on_the_wire() -> None:
    assert compared("load.c8", load(0.06, 0.24, concurrency=8)).startswith(AGREES)
    with pytest.raises(PreconditionError):
        compared("load.c1", load(0.06, 0.24))


def test_answers_of_one_token_have_no_decode_time() -> None:
    timing = Timing("text/sum", "5", 300, 1, 0.025, 0.026)
    times = {"ttft": 0.02, "decode": 0.0, "latency": 0.021}
    short = replace(load(1, 1), timings=(timing, timing), server_seconds=times)
    told = compared("image.prefill", short)
    assert told.startswith(AGREES)
    assert "TPOT" not in told
    late = replace(timing, ttft_seconds=0.06, seconds=0.061)
    with pytest.raises(PreconditionError, match="TTFT 60 ms"):
        compared("image.prefill", replace(short, timings=(late, late)))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"server_seconds": {}}, "its /metrics page does not have them"),
        ({"server_seconds": {"ttft": 0.02, "decode": 0.18}}, "does not have them"),
        ({"server_requests": 3}, "it counted 3 requests while 2 were measured"),
        ({"server_requests": 1}, "it counted 1 requests while 2 were measured"),
        ({"wire_seconds": None}, "while the wire was measured"),
    ],
    ids=["no metrics", "no latency", "other clients", "requests that it lost", "no wire"],
)
def test_where_nothing_can_be_compared_it_says_so(changes: dict[str, object], why: str) -> None:
    told = compared("text", replace(load(0.194, 0.205), **changes))  # type: ignore[arg-type]
    assert told.startswith("the times were not compared with the server's own: ")
    assert why in told


def test_a_verdict_says_what_was_compared() -> None:
    asked = rules.LoadExpectations({})
    assert AGREES in rules.judge_load("text", load(0.02, 0.2), asked).reason
    unknown = replace(load(0.02, 0.2), server_seconds={})
    verdict = rules.judge_load("text", unknown, asked)
    assert verdict.passed
    assert "the times were not compared" in verdict.reason


def test_a_failing_answer_comes_before_its_times() -> None:
    burst = replace(load(0.194, 0.205), errors=("HTTP 500: out of memory",))
    assert not rules.judge_load("text", burst, rules.LoadExpectations({})).passed
