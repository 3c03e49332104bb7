"""Reads a vLLM server's `/metrics`: the mean queue, prefill and decode time of requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx

from ..endpoint import Endpoint

QUANTITIES = ("queue", "prefill", "decode")
"""The parts of a request's time on the server."""

_SECONDS = 10.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Counters:
    """The server's counters: quantity -> (total seconds of all requests, number of requests)."""

    times: dict[str, tuple[float, float]]

    def means_since(self, before: Counters) -> dict[str, float]:
        """Quantity -> mean seconds per request since `before`; without requests, no entry."""
        means = {}
        for quantity, (seconds, requests) in self.times.items():
            earlier_seconds, earlier_requests = before.times.get(quantity, (0.0, 0.0))
            if requests > earlier_requests:
                count = requests - earlier_requests
                means[quantity] = (seconds - earlier_seconds) / count
        return means


def measure(endpoint: Endpoint, work: Callable[[], _T]) -> tuple[_T, dict[str, float]]:
    """Calls `work`; returns its result and the means of the requests during the call.

    The means are empty if the server has no such metrics. No criterion uses them.
    """
    before = _read_server(endpoint)
    result = work()
    return result, _read_server(endpoint).means_since(before)


def read(text: str) -> Counters:
    """Parses counters in the Prometheus text format."""
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # There is one sample per engine: sum them.
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    names = {quantity: f"vllm:request_{quantity}_time_seconds" for quantity in QUANTITIES}
    return Counters(
        {
            quantity: (values[f"{name}_sum"], values[f"{name}_count"])
            for quantity, name in names.items()
            if f"{name}_sum" in values and f"{name}_count" in values
        }
    )


def _read_server(endpoint: Endpoint) -> Counters:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    url = f"{endpoint.url}/metrics"
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=not endpoint.is_local) as http:
            reply = http.get(url, headers=headers)
        return read(reply.text) if reply.status_code == httpx.codes.OK else Counters({})
    except (httpx.HTTPError, ValueError):
        return Counters({})
