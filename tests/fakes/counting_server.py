"""A replaying server whose `/metrics` has the times of its streamed requests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from fakes.replay_server import Behaviour, Request, State


@dataclass
class Counting:
    """A server that counts the times of its streamed requests, as vLLM does.

    Attributes:
        is_buffered: True if all pieces of an answer are sent at its end.
        seconds: quantity -> sum over the requests.
        requests: number of requests, `others` included.
        others: number of requests of other clients for each of ours.
    """

    is_buffered: bool = False
    others: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    _this: threading.local = field(default_factory=threading.local)

    @property
    def behaviour(self) -> Behaviour:
        return Behaviour(crash=self._begin, sent=self._sent)

    def metrics(self) -> str:
        names = {"ttft": "time_to_first_token", "latency": "e2e_request_latency"}
        lines = []
        for quantity in ("ttft", "latency", "decode"):
            name = f"vllm:{names.get(quantity, 'request_decode_time')}_seconds"
            lines += [f"# TYPE {name} histogram", f"{name}_count {self.requests}"]
            lines += [f"{name}_sum {self.seconds[quantity]}"]
        return "\n".join([*lines, ""])

    def _begin(self, request: Request, _state: State) -> None:
        self._this.begin, self._this.is_long = time.perf_counter(), request.max_tokens > 1
        time.sleep(0.1)

    def _sent(self, events: Iterator[bytes]) -> Iterator[bytes]:
        """Sends the events as they are made; counts a request before its end is sent."""
        first, held = time.perf_counter(), b""
        for index, event in enumerate(events):
            if index == 1 and self._this.is_long:
                time.sleep(0.3)
            is_last = event == b"data: [DONE]\n\n"
            if is_last:
                self._count(first)
            held += event
            if is_last or not self.is_buffered:
                yield held
                held = b""

    def _count(self, first: float) -> None:
        begin, last = self._this.begin, time.perf_counter()
        self.seconds.update(ttft=first - begin, decode=last - first, latency=last - begin)
        self.requests += 1 + self.others
