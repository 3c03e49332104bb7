"""Rules of performance.*: noise of the host decides no verdict, and each threshold can fail."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ascend_vlm import Capability, Case, Limit, Workload
from pytest_ascend_vlm.criteria import limits as limit_rules
from pytest_ascend_vlm.criteria import performance as rules
from pytest_ascend_vlm.criteria.distribution import (
    Metric,
    distribution,
    mean_bounds,
    quantile_bounds,
)
from pytest_ascend_vlm.criteria.performance import TimeRatio, median_ratio
from pytest_ascend_vlm.criteria.workload import judge_workload, untold
from pytest_ascend_vlm.errors import ConfigurationError, PreconditionError
from pytest_ascend_vlm.observation.load import Load, Timing

CASE = Case("document/page-01", Capability.DOCUMENT, "读出全文", max_tokens=64)


def timing(text: str = "第一行\n第二行", seconds: float = 0.5, tokens: int = 11) -> Timing:
    return Timing(CASE.id, text, 300, tokens, 0.1, seconds)


def load(*timings: Timing, errors: tuple[str, ...] = (), concurrency: int = 1) -> Load:
    return Load("a generator", concurrency, 2.0, timings, errors)


# --- figures -------------------------------------------------------------------------------------


def test_tpot_is_of_the_tokens_after_the_first() -> None:
    assert timing(seconds=0.6, tokens=11).tpot_seconds == pytest.approx(0.05)
    assert timing(tokens=1).tpot_seconds is None


@pytest.mark.parametrize(
    ("count", "tails"),
    [
        (28, []),
        (29, ["p90"]),
        (58, ["p90"]),
        (59, ["p90", "p95"]),
        (298, ["p90", "p95"]),
        (299, ["p90", "p95", "p99"]),
    ],
)
def test_a_quantile_needs_as_many_samples_as_can_tell_it(count: int, tails: list[str]) -> None:
    names = [figure.name for figure in distribution("text.ttft", [0.1] * count)]
    assert names == [f"text.ttft.{name}" for name in ("mean", "median", *tails)]


@pytest.mark.parametrize(
    ("figure", "measurement"),
    [
        ("text.ttft.median", "text"),
        ("image.latency.p90", "image"),
        ("image.prefill.median", "image.prefill"),
        ("load.c8.output_throughput", "load.c8"),
        ("load.ramp.goodput", "load.ramp"),
        ("cpu.peak", "cpu"),
    ],
)
def test_a_figure_comes_from_one_measurement(figure: str, measurement: str) -> None:
    assert rules.FIGURE.fullmatch(figure)
    assert rules.measurement_of(figure) == measurement


def test_the_figures_of_a_load_have_names_and_units() -> None:
    found = {f.name: f for f in rules.metrics("load.c8", load(timing(), timing()))}
    assert found["load.c8.output_throughput"].value == 11
    assert found["load.c8.request_throughput"].value == 1
    assert found["load.c8.output_throughput"].unit == "tok/s"
    assert found["load.c8.ttft.median"].value == 0.1
    assert "load.c8.goodput" not in found
    told = replace(load(timing()), server_seconds={"queue": 0.2})
    assert Metric("load.c8.server_queue.mean", 0.2, "s") in rules.metrics("load.c8", told)
    assert all(rules.FIGURE.fullmatch(f.name) for f in rules.metrics("load.c8", told))
    assert rules.metrics("load.c8", load(errors=("HTTP 500",))) == ()


def test_an_interval_of_a_quantile_covers_it_as_often_as_it_says() -> None:
    draw = random.Random(5)
    for quantile, count in ((0.5, 10), (0.9, 60), (0.99, 400)):
        covered = 0
        for _ in range(400):
            low, high = quantile_bounds([draw.random() for _ in range(count)], quantile)
            covered += low <= quantile <= high
        assert covered >= 0.93 * 400, (quantile, covered)


def test_an_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    draw = random.Random(5)
    for count in (3, 10, 60):
        bounds = [mean_bounds([draw.gauss(1, 0.1) for _ in range(count)]) for _ in range(400)]
        assert 0.92 * 400 <= sum(low <= 1 <= high for low, high in bounds) <= 0.98 * 400, count


def test_no_end_of_an_interval_of_times_is_negative() -> None:
    low, high = mean_bounds([0.93, 3.3, 11.3])
    assert low == 0.0
    assert high > 11.3


def test_too_few_values_leave_an_end_of_the_interval_open() -> None:
    assert mean_bounds([0.5]) == (0.0, math.inf)
    assert quantile_bounds([0.1] * 5, 0.5) == (0.0, math.inf)
    low, high = quantile_bounds([float(k) for k in range(1, 31)], 0.9)
    assert (low, high) == (23.0, math.inf)


def test_the_gaps_and_the_rate_of_a_user_are_metrics() -> None:
    with_gaps = replace(timing(), itl_seconds=(0.04, 0.06))
    found = {f.name: f for f in rules.metrics("load.c2", load(with_gaps, with_gaps))}
    assert found["load.c2.itl.mean"] == Metric("load.c2.itl.mean", 0.05, "s")
    assert found["load.c2.user_throughput.mean"].value == 22
    assert "load.c2.user_throughput.p90" not in found


# --- the ratio of pairs --------------------------------------------------------------------------


def test_the_interval_is_the_sign_tests() -> None:
    # 10 pairs: the 2nd and the 9th, since 1 - 2 * P(Bin(10, 1/2) <= 1) = 97.9 % >= 95 %.
    ratio = median_ratio([(float(k), 1.0) for k in range(1, 11)])
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 5.5, 9.0)


def test_few_pairs_show_nothing() -> None:
    ratio = median_ratio([(2.0, 1.0)] * 5)
    assert (ratio.low, ratio.high) == (0.0, math.inf)
    assert median_ratio([(2.0, 1.0)] * 6).low == 2.0


def test_slow_moments_of_the_host_move_it_little() -> None:
    calm = [(1.0 + k / 1000, 1.0) for k in range(24)]
    disturbed = [(a * 20, b) if k % 6 == 0 else (a, b) for k, (a, b) in enumerate(calm)]
    assert median_ratio(disturbed).low < 1.02
    assert statistics.fmean(a / b for a, b in disturbed) > 4


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    draw = random.Random(7)
    covered = 0
    for _ in range(1000):
        pairs = [(math.exp(draw.gauss(0, 0.3)), 1.0) for _ in range(24)]
        ratio = median_ratio(pairs)
        covered += ratio.low <= 1.0 <= ratio.high
    assert 945 <= covered <= 985  # the binomial distribution gives 97.7 %


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=6, max_size=60))
def test_the_median_is_inside_its_interval(pairs: list[tuple[float, float]]) -> None:
    ratio = median_ratio(pairs)
    assert ratio.low <= ratio.median <= ratio.high


# --- answers -------------------------------------------------------------------------------------


def answered(*timings: Timing, errors: tuple[str, ...] = (), reference: str = "") -> rules.Verdict:
    references = {CASE.id: reference} if reference else {}
    asked = rules.LoadExpectations({CASE.id: CASE.max_tokens}, {CASE.id: 256}, references)
    return rules.judge_load("image", load(*timings, errors=errors), asked)


def test_good_answers_pass() -> None:
    verdict = answered(timing(), timing())
    assert verdict.passed
    assert verdict.evidence["series"][0] == {"name": "latency", "unit": "s", "values": [0.5, 0.5]}
    assert verdict.evidence["ttft_by_image_tokens"][0] == {"image_tokens": 256, "ttft_s": 0.1}
    assert verdict.evidence["sweep"]["output_throughput_tok_s"] == 11
    assert "ttft.median 0.1 s" in verdict.reason


def test_one_failed_request_is_one_too_many() -> None:
    verdict = answered(*[timing()] * 31, errors=("HTTP 500: out of memory",))
    assert not verdict.passed
    assert verdict.measured == 31 / 32
    assert "out of memory" in verdict.details[0]


@pytest.mark.parametrize("text", ["!" * 64, "", "   \n", "这一页" * 21])
def test_degenerate_answers_are_not_throughput(text: str) -> None:
    verdict = answered(timing(), timing(text, tokens=64))
    assert not verdict.passed
    assert verdict.measured == 0.5


def test_a_loop_of_the_reference_is_excused() -> None:
    assert answered(timing("这一页" * 21, tokens=64), reference="这一页" * 21).passed


def test_wrong_answers_are_not_throughput() -> None:
    references = {CASE.id: "page one", "document/page-02": "all else, page two"}
    asked = rules.LoadExpectations({}, references=references, similarity=0.75)
    almost = timing("page One")  # a near-tie may change a token
    assert rules.judge_load("load.c8", load(almost), asked).passed
    verdict = rules.judge_load("load.c8", load(almost, timing("all else, page two")), asked)
    assert not verdict.passed
    assert verdict.measured == 0.5
    assert "it is the answer to document/page-02" in verdict.details[0]
    verdict = rules.judge_load("load.c8", load(timing("nothing like it")), asked)
    assert "the reference answers 'page one'" in verdict.details[0]


def test_a_load_without_requests_fails() -> None:
    assert not answered().passed


@pytest.mark.parametrize(
    "seen",
    [load(), load(timing(), errors=("HTTP 500: out of memory",)), load(timing("!" * 64))],
    ids=["nothing", "an error", "garbage"],
)
def test_unanswered_requests_have_no_speed(seen: Load) -> None:
    asked = rules.LoadExpectations({CASE.id: CASE.max_tokens})
    rules.require_answers("load.c8", load(timing()), asked)
    with pytest.raises(
        PreconditionError, match=r"load\.c8: .*performance\.load judges the answers"
    ):
        rules.require_answers("load.c8", seen, asked)


# --- workloads -----------------------------------------------------------------------------------

TEXT = Workload("128/11", requests=2, input_tokens=128, output_tokens=11, concurrency=2)


def sent(workload: Workload, *timings: Timing, errors: tuple[str, ...] = ()) -> rules.Verdict:
    most = {"workload/text": 11, "workload/page": 11}
    images = {"workload/page": 2548} if workload.image_tokens else {}
    asked = rules.LoadExpectations(most, images, exact=True)
    return judge_workload(workload, load(*timings, errors=errors), asked, 2, "bfloat16")


def of_workload(kind: str, tokens: int = 11, prompt: int = 128) -> Timing:
    # What follows the end of an answer may be any text.
    return Timing(f"workload/{kind}", "!" * 64, prompt, tokens, 0.1, 0.5)


def test_a_workload_states_the_conditions_that_were_measured() -> None:
    verdict = sent(TEXT, of_workload("text"), of_workload("text", prompt=126))
    assert verdict.passed
    assert verdict.evidence["conditions"] == {
        "requests": 2,
        "warmups": 2,
        "concurrency": 2,
        "request_rate": None,
        "input_tokens": 127,
        "image_tokens": None,
        "output_tokens": 11,
        "dtype": "bfloat16",
        "tool": None,
    }
    names = {figure["name"] for figure in verdict.evidence["figures"]}
    assert "workload.128/11.latency.median" in names
    assert all(map(rules.FIGURE.fullmatch, names))
    assert {rules.measurement_of(name) for name in names} == {"workload.128/11"}


def test_pages_and_texts_of_a_workload_have_their_own_lengths() -> None:
    mixed = replace(TEXT, image_tokens=2560)
    conditions = sent(mixed, of_workload("text"), of_workload("page", prompt=2600)).evidence[
        "conditions"
    ]
    assert (conditions["input_tokens"], conditions["image_tokens"]) == (128, 2548)


@pytest.mark.parametrize(
    ("timings", "errors", "why"),
    [
        ([of_workload("text"), of_workload("text", tokens=7)], (), "7 tokens instead of 11"),
        ([of_workload("text")], ("workload/text: HTTP 500",), "HTTP 500"),
    ],
)
def test_an_answer_of_another_length_is_not_the_workload(
    timings: list[Timing], errors: tuple[str, ...], why: str
) -> None:
    verdict = sent(TEXT, *timings, errors=errors)
    assert not verdict.passed
    assert why in verdict.details[0]


def test_what_few_requests_cannot_tell_is_said() -> None:
    assert untold(10) == (
        "10 requests cannot tell p90 (at least 29), p95 (at least 59), p99 (at least 299)"
    )
    assert untold(100) == "100 requests cannot tell p99 (at least 299)"
    assert untold(299) == ""


# --- ratios of one run ---------------------------------------------------------------------------


def ratio(low: float) -> TimeRatio:
    return TimeRatio(low, low * 1.1, low * 1.2, 24)


@pytest.mark.parametrize(("low", "passed"), [(19.9, True), (20.1, False), (math.nan, False)])
def test_an_image_may_cost_what_an_encoder_costs(low: float, passed: bool) -> None:
    added = Metric("image.prefill.median", 0.2, "s")
    prefill = rules.Prefill(ratio(low), 2560, added, [(64, 0.1)], load(timing()))
    verdict = rules.judge_prefill(prefill, 20.0)
    assert verdict.passed is passed
    assert verdict.evidence["ttft_by_image_tokens"] == [{"image_tokens": 64, "ttft_s": 0.1}]
    assert verdict.evidence["figures"][0]["name"] == "image.prefill.median"


@pytest.mark.parametrize(("low", "passed"), [(1.05, True), (1.12, False)])
def test_a_slowdown_has_to_be_sure(low: float, passed: bool) -> None:
    assert rules.judge_slowdown("TTFT", ratio(low), 1.1).passed is passed


@pytest.mark.parametrize(("tokens", "passed"), [(33, True), (15, False), (11, False)])
def test_eight_at_a_time_are_faster_than_one(tokens: int, passed: bool) -> None:
    together = load(timing(tokens=tokens), concurrency=8)
    assert rules.judge_scaling(load(timing(tokens=11)), together, 1.5).passed is passed


def test_no_throughput_scales_to_nothing() -> None:
    assert not rules.judge_scaling(load(), load(timing()), 1.5).passed


@pytest.mark.parametrize(("idle", "passed"), [(1.0, True), (60.0, False)])
def test_an_idle_server_uses_little_cpu(idle: float, passed: bool) -> None:
    verdict = rules.judge_idle_cpu([idle, idle], [80.0, 95.0, 65.0], 0.2)
    assert verdict.passed is passed
    peak = next(f for f in verdict.evidence["figures"] if f["name"] == "cpu.peak")
    assert peak == {"name": "cpu.peak", "value": 95.0, "unit": "%", "low": None, "high": None}


def test_a_server_that_uses_nothing_was_not_seen() -> None:
    assert not rules.judge_idle_cpu([0.0], [0.0], 0.2).passed


# --- limits --------------------------------------------------------------------------------------


FOUND = {
    "image.ttft.median": Metric("image.ttft.median", 0.6, "s"),
    "load.c8.output_throughput": Metric("load.c8.output_throughput", 900.0, "tok/s"),
}


def limit(figure: str, value: float) -> Limit:
    return Limit(figure, value, device="910B4")


@pytest.mark.parametrize(
    ("limits", "passed"),
    [
        ([limit("image.ttft.median", 0.7)], True),
        ([limit("image.ttft.median", 0.5)], False),
        ([limit("load.c8.output_throughput", 800)], True),
        ([limit("load.c8.output_throughput", 1000)], False),
        ([limit("image.ttft.median", 0.7), limit("load.c8.output_throughput", 1000)], False),
    ],
    ids=["time", "too slow", "rate", "too low", "one of two"],
)
def test_limits(limits: list[Limit], passed: bool) -> None:
    assert limit_rules.judge_limits(FOUND, limits).passed is passed


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        ("image.ttft.p99", "at least 299 requests"),
        ("load.c8.latency.p99", "--vlm-requests=299"),
        ("image.server_queue.mean", "/metrics"),
        ("image.tpot.median", "no answer had a second token"),
    ],
)
def test_a_limit_of_an_unmeasured_metric_is_an_error(figure: str, why: str) -> None:
    limits = [limit("image.ttft.median", 0.7), limit(figure, 0.7)]
    with pytest.raises(PreconditionError, match=f"^{figure} could not be measured: ") as raised:
        limit_rules.judge_limits(FOUND, limits)
    assert why in str(raised.value)


def test_the_worst_limit_comes_first() -> None:
    limits = [limit("load.c8.output_throughput", 800), limit("image.ttft.median", 0.3)]
    verdict = limit_rules.judge_limits(FOUND, limits)
    assert verdict.measured == 2
    assert verdict.details[0] == "image.ttft.median: 0.6 s, at most 0.3"


def test_proposed_limits_are_kept_by_each_stored_run_and_missed_by_a_slower_one() -> None:
    stored = [
        {"text.ttft.median": 0.6, "text.ttft.mean": 9.0, "load.c8.output_throughput": 900.0},
        {"text.ttft.median": 0.7, "text.ttft.mean": 9.0, "load.c8.output_throughput": 800.0},
    ]
    limits = limit_rules.proposed_limits(stored, "1 x 910B4", 0.2)
    assert limits == (
        Limit("text.ttft.median", 0.84, "1 x 910B4"),
        Limit("load.c8.output_throughput", 640, "1 x 910B4"),
    )
    units = {"text.ttft.median": "s", "load.c8.output_throughput": "tok/s"}
    for run in stored:
        for slower, passed in ((1.0, True), (1.5, False)):
            today = {
                name: Metric(name, run[name] * slower if unit == "s" else run[name] / slower, unit)
                for name, unit in units.items()
            }
            assert limit_rules.judge_limits(today, limits).passed is passed


@pytest.mark.parametrize("value", [0.8333, 0.83334, 1 / 1.2])
def test_a_proposed_limit_is_no_placeholder(value: float) -> None:
    (proposed,) = limit_rules.proposed_limits([{"text.ttft.median": value}], "910B4", 0.2)
    assert proposed.value == 1.01


@pytest.mark.parametrize("value", [0, 1, 1.0, -3, math.nan, math.inf, "450"])
def test_a_placeholder_is_no_limit(value: float | str) -> None:
    with pytest.raises(ConfigurationError, match="placeholder"):
        limit("image.ttft.median", value)


def test_a_limit_names_its_device() -> None:
    with pytest.raises(ConfigurationError, match="device"):
        Limit("image.ttft.median", 0.5, device=" ")


# --- stored runs ---------------------------------------------------------------------------------


def runs(*values: float) -> list[dict[str, float]]:
    return [{"image.ttft.median": value, "image.ttft.p90": 0.001} for value in values]


def found(value: float, name: str = "image.ttft.median", unit: str = "s") -> dict[str, Metric]:
    return {name: Metric(name, value, unit)}


@pytest.mark.parametrize(
    ("today", "stored", "passed"),
    [
        (0.600, [0.60, 0.61, 0.59], True),
        (0.720, [0.60, 0.61, 0.59], False),
        (0.400, [0.60, 0.61, 0.59], True),
        (0.720, [0.60, 0.80, 0.45], True),
    ],
    ids=["the same", "20 % slower", "faster", "runs that scatter show nothing"],
)
def test_stored_runs(today: float, stored: list[float], passed: bool) -> None:
    assert limit_rules.judge_baseline(found(today), runs(*stored), 1.1).passed is passed


def test_of_a_throughput_less_is_slower() -> None:
    stored = [{"load.c8.output_throughput": value} for value in (900.0, 910.0, 905.0)]
    for value, passed in ((890.0, True), (700.0, False), (1200.0, True)):
        today = found(value, "load.c8.output_throughput", "tok/s")
        assert limit_rules.judge_baseline(today, stored, 1.1).passed is passed


def test_tails_are_not_compared() -> None:
    today = {**found(9.0, "image.ttft.p90"), **found(9.0, "load.c8.itl.mean"), **found(0.6)}
    verdict = limit_rules.judge_baseline(today, runs(0.6, 0.6, 0.6), 1.1)
    assert verdict.passed
    assert list(verdict.evidence["slower_at_least"]) == ["image.ttft.median"]


def test_where_nothing_can_be_compared_there_is_no_verdict() -> None:
    for today, stored in (
        (found(9.0, "image.ttft.p90"), runs(0.6, 0.6, 0.6)),
        (found(0.6), runs(0.6, 0.6)),
        (found(0.6, "text.ttft.median"), runs(0.6, 0.6, 0.6)),
    ):
        with pytest.raises(PreconditionError, match="--vlm-save-performance"):
            limit_rules.judge_baseline(today, stored, 1.1)


def test_false_alarms_of_stored_runs_are_rare() -> None:
    draw = random.Random(3)
    alarms = 0
    for _ in range(500):
        drawn = [0.6 * math.exp(draw.gauss(0, 0.05)) for _ in range(4)]
        alarms += not limit_rules.judge_baseline(found(drawn[0]), runs(*drawn[1:]), 1.1).passed
    assert alarms <= 15
