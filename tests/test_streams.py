"""The times of a stream, taken of a server that passes it on in time or at its end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.counting_server import Counting
from fakes.replay_server import Defect, Stub
from helpers.outcome import Serve
from helpers.paths import FIXTURES

from pytest_ascend_vlm.criteria.serving import is_in_time
from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.processes import cpu_wait
from pytest_ascend_vlm.session.streams import streams
from pytest_ascend_vlm.spec.case_files import load_cases
from pytest_ascend_vlm.spec.thresholds import STREAM_ATTEMPTS, STREAM_TOKENS

NAME = "OpenDataLab/MinerU2.5-2509-1.2B"
TEXT = next(case for case in load_cases([FIXTURES]) if case.id == "text/capital")


@contextlib.contextmanager
def client_of(url: str) -> Iterator[Client]:
    with contextlib.closing(Client(Endpoint(url, NAME, "none"), lambda: None)) as client:
        yield client


def test_one_stream_in_time_is_enough(stub: Serve) -> None:
    with client_of(stub()) as client:
        *late, last = streams(client, TEXT)
        assert not client.completions  # behind its end an answer may be any text
    assert is_in_time(last)
    assert not any(map(is_in_time, late))
    assert last.tokens == STREAM_TOKENS
    assert last.decode_seconds is None
    assert len(last.arrivals) > 2


def test_streams_that_are_late_are_tried_again(stub: Serve) -> None:
    with client_of(stub(Defect.STREAM_IS_BUFFERED.value)) as client:
        found = streams(client, TEXT)
    assert len(found) == STREAM_ATTEMPTS
    assert all(one.arrivals[0] > one.seconds / 2 for one in found)


@pytest.mark.parametrize(("others", "is_known"), [(0, True), (1, False)])
def test_the_servers_own_decode_time_is_used_if_it_is_that_of_the_stream(
    others: int, is_known: bool, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Counting(others=others)
    monkeypatch.setattr(Stub, "metrics", lambda _: server.metrics())
    with client_of(stub(server.behaviour)) as client:
        one = streams(client, TEXT)[-1]
    assert (one.decode_seconds is not None) is is_known
    assert one.decode_seconds is None or 0.3 <= one.decode_seconds <= one.seconds


WAITS = """
import os, time
from pytest_ascend_vlm.processes.cpu_wait import cpu_wait_seconds
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
other = os.fork()
if not other:
    parent = os.getppid()
    while os.getppid() == parent:
        pass
    os._exit(0)
before, since = cpu_wait_seconds(), time.perf_counter()
while time.perf_counter() - since < 0.5:
    pass
print(cpu_wait_seconds() - before)
os.kill(other, 9)
"""


@pytest.mark.skipif(not cpu_wait._SCHEDSTAT.exists(), reason="the kernel does not count it")
def test_a_thread_that_shares_its_cpu_has_waited_for_it() -> None:
    ran = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, check=True)
    assert float(ran.stdout) > 0.1  # about half of the time; a busy host makes it more


def test_where_the_kernel_does_not_count_it_nothing_was_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_wait, "_SCHEDSTAT", tmp_path / "none")
    assert cpu_wait.cpu_wait_seconds() == 0.0
