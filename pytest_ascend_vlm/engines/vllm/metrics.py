"""What a vLLM server says of the requests that it has answered: `/metrics`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx

from ..endpoint import Endpoint

QUANTITIES = ("queue", "prefill", "decode")
"""What a request's time on the server is made of."""

_SECONDS = 10.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Counters:
    """What the server has counted so far: quantity -> (seconds of all requests, requests)."""

    times: dict[str, tuple[float, float]]

    def means_since(self, before: Counters) -> dict[str, float]:
        """Quantity -> mean seconds of the requests since an earlier look; none where none came."""
        means = {}
        for quantity, (seconds, requests) in self.times.items():
            earlier_seconds, earlier_requests = before.times.get(quantity, (0.0, 0.0))
            if requests > earlier_requests:
                new = requests - earlier_requests
                means[quantity] = (seconds - earlier_seconds) / new
        return means


def while_doing(endpoint: Endpoint, work: Callable[[], _T]) -> tuple[_T, dict[str, float]]:
    """Does something, and returns with it the means of the requests meanwhile.

    They are empty where the server has no such metrics; nothing is judged by them.
    """
    before = _look(endpoint)
    result = work()
    return result, _look(endpoint).means_since(before)


def read(text: str) -> Counters:
    """The counters in the text format of Prometheus."""
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # One sample for each engine.
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    names = {quantity: f"vllm:request_{quantity}_time_seconds" for quantity in QUANTITIES}
    return Counters(
        {
            quantity: (values[f"{name}_sum"], values[f"{name}_count"])
            for quantity, name in names.items()
            if f"{name}_sum" in values and f"{name}_count" in values
        }
    )


def _look(endpoint: Endpoint) -> Counters:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    url = f"{endpoint.url}/metrics"
    try:
        with httpx.Client(timeout=_SECONDS, trust_env=not endpoint.is_local) as http:
            reply = http.get(url, headers=headers)
        return read(reply.text) if reply.status_code == httpx.codes.OK else Counters({})
    except (httpx.HTTPError, ValueError):
        return Counters({})
