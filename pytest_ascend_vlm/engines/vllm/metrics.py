"""Reads a vLLM server's `/metrics`: mean times of requests, and counts of what it did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TypeVar

import httpx

from ...observation.caches import CacheUse
from ..endpoint import Endpoint

_TIMES = {
    "ttft": "vllm:time_to_first_token_seconds",
    "latency": "vllm:e2e_request_latency_seconds",
    "queue": "vllm:request_queue_time_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "decode": "vllm:request_decode_time_seconds",
}
"""The times of a request on the server. TTFT and latency begin when the API server has its prompt;
queue, prefill and decode are the engine's, and one follows the other."""

_CACHES = ("mm_cache_queries", "mm_cache_hits", "prefix_cache_queries", "prefix_cache_hits")
_DRAFTS = "vllm:spec_decode_num_draft_tokens_total"
_PREEMPTIONS = "vllm:num_preemptions_total"
_RUNNING = "vllm:num_requests_running"
_HELD = (_RUNNING, "vllm:num_requests_waiting")
_SECONDS = 10.0
_INTERVAL = 0.2
"""Seconds between two looks at a server that works; each look takes time of its API server."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Counters:
    """The server's counters.

    Attributes:
        times: quantity -> (total seconds of all requests, number of requests).
        caches: the use of the caches; None if the server does not count it.
        draft_tokens: the draft tokens of speculative decoding; None if the server counts none.
        preemptions: how often a request lost its blocks; None if the server does not count it.
        held: the requests that the server computes or has waiting; None if it counts none.
        running: the requests that the server computes; None if it does not count them.
    """

    times: Mapping[str, tuple[float, float]]
    caches: CacheUse | None = None
    draft_tokens: float | None = None
    preemptions: float | None = None
    held: float | None = None
    running: float | None = None

    def means_since(self, before: Counters) -> dict[str, float]:
        """Quantity -> mean seconds per request since `before`; without requests, no entry."""
        means = {}
        for quantity, (seconds, requests) in self.times.items():
            earlier_seconds, earlier_requests = before.times.get(quantity, (0.0, 0.0))
            if requests > earlier_requests:
                count = requests - earlier_requests
                means[quantity] = (seconds - earlier_seconds) / count
        return means

    def requests_since(self, before: Counters) -> int:
        """Number of requests since `before` that are complete."""
        earlier, now = (one.times.get("latency", (0.0, 0.0))[1] for one in (before, self))
        return round(now - earlier)

    def caches_since(self, before: Counters) -> CacheUse | None:
        """The use of the caches since `before`; None if the server does not count it."""
        if self.caches is None or before.caches is None:
            return None
        pairs = zip(astuple(self.caches), astuple(before.caches), strict=True)
        return CacheUse(*(now - then for now, then in pairs))

    def draft_tokens_since(self, before: Counters) -> float | None:
        """The draft tokens since `before`; None if the server counts none."""
        return _difference(self.draft_tokens, before.draft_tokens)

    def preemptions_since(self, before: Counters) -> float | None:
        """The preemptions since `before`; None if the server does not count them."""
        return _difference(self.preemptions, before.preemptions)


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


@dataclass(frozen=True)
class Measured:
    """What a server counted during some requests.

    Attributes:
        seconds: quantity -> mean seconds per request; empty if the server has no such metrics.
        caches: the use of the caches; None if the server does not count it.
        draft_tokens: the draft tokens of speculative decoding; None if the server counts none.
        preemptions: how often a request lost its blocks; None if the server does not count it.
        requests: number of complete requests, those of other clients included.
    """

    seconds: Mapping[str, float]
    caches: CacheUse | None
    draft_tokens: float | None = None
    preemptions: float | None = None
    requests: int = 0


def measure(endpoint: Endpoint, work: Callable[[], _T]) -> tuple[_T, Measured]:
    """Calls `work`; returns its result and what the server counted during the call."""
    before = _read_server(endpoint)
    result = work()
    after = _read_server(endpoint)
    return result, Measured(
        after.means_since(before),
        after.caches_since(before),
        after.draft_tokens_since(before),
        after.preemptions_since(before),
        after.requests_since(before),
    )


def requests_held(endpoint: Endpoint) -> float | None:
    """Number of requests that a server computes or has waiting; None if it does not count them."""
    return _read_server(endpoint).held


def watch_running(endpoint: Endpoint, work: Callable[[], _T]) -> tuple[_T, int | None]:
    """Calls `work`; returns its result and the most requests that were seen to run meanwhile.

    The server is looked at now and then, so more may have run between two looks.

    Returns:
        The result; the number of requests, None if the server does not count them or none was seen.
    """
    is_done, seen = threading.Event(), [0.0]

    def look() -> None:
        with _connected(endpoint) as counters:
            while not is_done.wait(_INTERVAL):
                seen.append(counters().running or 0.0)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        result = work()
    finally:
        is_done.set()
        watcher.join()
    return result, int(max(seen)) or None


def read(text: str) -> Counters:
    """Parses counters in the Prometheus text format."""
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # There is one sample per engine: sum them.
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    times = {
        quantity: (values[f"{name}_sum"], values[f"{name}_count"])
        for quantity, name in _TIMES.items()
        if f"{name}_sum" in values and f"{name}_count" in values
    }
    caches = [values.get(f"vllm:{name}_total") for name in _CACHES]
    known = [value for value in caches if value is not None]
    use = CacheUse(*known) if len(known) == len(caches) else None
    held = [values[name] for name in _HELD if name in values]
    return Counters(
        times,
        use,
        values.get(_DRAFTS),
        values.get(_PREEMPTIONS),
        sum(held) if held else None,
        values.get(_RUNNING),
    )


def _read_server(endpoint: Endpoint) -> Counters:
    with _connected(endpoint) as counters:
        return counters()


@contextmanager
def _connected(endpoint: Endpoint) -> Iterator[Callable[[], Counters]]:
    """A function that reads the server's counters now; over one connection."""
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    with httpx.Client(
        headers=headers,
        timeout=_SECONDS,
        verify=endpoint.certificates,
        trust_env=not endpoint.is_local,
    ) as http:

        def counters() -> Counters:
            try:
                reply = http.get(f"{endpoint.url}/metrics")
                return read(reply.text) if reply.status_code == httpx.codes.OK else Counters({})
            except (httpx.HTTPError, ValueError):
                return Counters({})

        yield counters
