"""What a server says of its own requests, read from `/metrics`."""

from __future__ import annotations

import threading

import pytest
from fakes.replay_server import Stub
from helpers.outcome import Serve

from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.vllm import metrics
from pytest_ascend_vlm.engines.vllm.metrics import Counters, Measured
from pytest_ascend_vlm.errors import ServerError
from pytest_ascend_vlm.observation.caches import CacheUse

NOTHING = Measured({}, None)


def text(seconds: float, requests: int, engine: int = 0) -> str:
    labels = f'{{engine="{engine}",model_name="一个模型"}}'
    lines = [
        "# HELP vllm:request_queue_time_seconds x",
        "# TYPE vllm:request_queue_time_seconds histogram",
    ]
    lines += [f'vllm:request_queue_time_seconds_bucket{{engine="{engine}",le="0.3"}} {requests}.0']
    lines += [f"vllm:request_queue_time_seconds_count{labels} {requests}.0"]
    lines += [f"vllm:request_queue_time_seconds_sum{labels} {seconds}"]
    return "\n".join(lines) + "\n"


def test_means_are_of_the_requests_between_two_looks() -> None:
    before, after = metrics.read(text(2.0, 4)), metrics.read(text(5.0, 10))
    assert after.means_since(before) == {"queue": 0.5}
    assert after.means_since(after) == {}
    assert before.means_since(Counters({})) == {"queue": 0.5}


def test_engines_are_added_up() -> None:
    two = text(2.0, 4) + "\n".join(text(4.0, 2, engine=1).splitlines()[2:]) + "\n"
    assert metrics.read(two).times == {"queue": (6.0, 6.0)}


@pytest.mark.parametrize("body", ["", "<html>收入</html>", "vllm:request_queue_time_seconds_sum x"])
def test_what_is_no_metrics_tells_nothing(
    body: str, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stub, "metrics", lambda _: body)
    endpoint = Endpoint(stub(), "a-model", "none")
    assert metrics.measure(endpoint, lambda: "done") == ("done", NOTHING)


def test_a_server_tells_what_happened_meanwhile(
    stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([text(2.0, 4), text(5.0, 10)])
    monkeypatch.setattr(Stub, "metrics", lambda _: next(told))
    endpoint = Endpoint(stub(), "a-model", "none")
    assert metrics.measure(endpoint, lambda: 1) == (1, Measured({"queue": 0.5}, None))


def test_the_most_requests_that_run_meanwhile_are_kept(
    stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, seen = iter([3, 7, 2]), threading.Event()

    def page(_: Stub) -> str:
        number = next(numbers, None)
        if number is None:
            seen.set()
        return f"vllm:num_requests_running {number or 0}\nvllm:num_requests_waiting 9\n"

    monkeypatch.setattr(Stub, "metrics", page)
    endpoint = Endpoint(stub(), "a-model", "none")
    assert metrics.watch_running(endpoint, lambda: seen.wait(60)) == (True, 7)


@pytest.mark.parametrize("body", ["", "vllm:num_requests_running 0\n"])
def test_a_number_of_running_requests_that_was_not_seen_is_unknown(
    body: str, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    monkeypatch.setattr(Stub, "metrics", lambda _: looked.set() or body)
    endpoint = Endpoint(stub(), "a-model", "none")
    assert metrics.watch_running(endpoint, lambda: looked.wait(60)) == (True, None)


def test_a_watch_ends_with_what_it_watches(stub: Serve) -> None:
    def fail() -> None:
        raise ServerError("the server has ended")

    before = set(threading.enumerate())
    endpoint = Endpoint(stub(), "a-model", "none")
    with pytest.raises(ServerError):
        metrics.watch_running(endpoint, fail)
    assert not [one for one in set(threading.enumerate()) - before if "look" in one.name]


def test_a_server_without_metrics_is_no_error(stub: Serve) -> None:
    endpoint = Endpoint(stub(), "a-model", "none")
    assert metrics.measure(endpoint, lambda: 1) == (1, NOTHING)


def test_the_use_of_caches_is_what_was_counted_meanwhile() -> None:
    def counted(*numbers: int) -> str:
        names = ("mm_cache_queries", "mm_cache_hits", "prefix_cache_queries", "prefix_cache_hits")
        pairs = zip(names, numbers, strict=True)
        return "".join(
            f'# TYPE vllm:{name} counter\nvllm:{name}_total{{engine="0"}} {number}.0\n'
            for name, number in pairs
        )

    before, after = metrics.read(counted(1, 1, 100, 64)), metrics.read(counted(5, 2, 300, 64))
    assert after.caches_since(before) == CacheUse(4, 1, 200, 0)
    assert after.caches_since(Counters({})) is None
    assert metrics.read(counted(1, 2, 3, 4).replace("prefix_cache_hits", "other")).caches is None


def test_preemptions_are_those_between_two_looks() -> None:
    one, two = (
        metrics.read(f"# TYPE vllm:num_preemptions counter\nvllm:num_preemptions_total {count}\n")
        for count in (2, 5)
    )
    assert two.preemptions_since(one) == 3
    assert two.preemptions_since(Counters({})) is None
