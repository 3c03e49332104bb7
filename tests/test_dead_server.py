"""A server that dies: what is said of it, and by whom."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.vllm_server import Launch, VllmServer
from pytest_ascend_vlm.errors import ServerError
from pytest_ascend_vlm.spec import Budgets, Capability, Case, Sampling

LOGS = Path(__file__).parent / "logs"
CAPITAL = Case("text/capital", Capability.TEXT, "What is the capital of France?")

Plan = Callable[..., VllmServer]


@pytest.fixture
def planned(stand_in_root: Path, tmp_path: Path) -> Iterator[Plan]:  # noqa: ARG001
    """Makes servers of the stand-in that behave by a plan, and ends them with the test."""
    with contextlib.ExitStack() as stack:

        def make(budget: float = 60.0, **plan: Any) -> VllmServer:
            launch = Launch(
                model_path=tmp_path,
                served_name="stand-in",
                serve={},
                env={"STAND_IN": json.dumps(plan)},
                trust_remote_code=False,
                budgets=Budgets(start=budget, weights=budget, graphs=budget, first_image=budget),
                log_path=tmp_path / "logs" / "stand-in.log",
            )
            server = VllmServer(launch, CAPITAL, lambda *_: None, lambda: None)
            stack.callback(server.stop)
            return server

        yield make


def death(server: VllmServer) -> list[str]:
    """What is said of a server that does not start."""
    with pytest.raises(ServerError) as caught:
        server.start()
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("log", "phase", "cause"),
    [
        (
            "018-nolib",
            "start",
            "Root cause (EngineCore, pid 4869): RuntimeError: libtcmalloc is",
        ),
        (
            "023-wrongshape",
            "weights",
            "Root cause (Worker, pid 14076): RuntimeError: start (0)",
        ),
        (
            "018-kvbig",
            "graphs",
            "Root cause (EngineCore, pid 8733): RuntimeError: [enforce",
        ),
        (
            "011-flag",
            "start",
            "Root cause: api_server.py: error: unrecognized arguments",
        ),
    ],
)
def test_a_server_that_does_not_start_says_when_and_of_what(
    log: str, phase: str, cause: str, planned: Plan
) -> None:
    server = planned(exit=1, last_words=str(LOGS / f"{log}.log"))
    said = death(server)
    assert said[0] == f"the server of stand-in died in the phase '{phase}' (exit code 1)."
    assert said[1].startswith(cause)
    assert said[2].startswith("What to try: ")
    assert said[3] == "The end of its log:"
    assert said[-1] == f"(whole log: {server.log_path})"


def test_a_server_that_was_killed_says_by_what(planned: Plan) -> None:
    words = LOGS / "011-killed.log"
    said = death(planned(exit=-9, last_words=str(words)))
    assert said[0].endswith(
        "(exit code 137: SIGKILL, which the kernel sends when memory runs out)."
    )
    assert said[1].startswith("Root cause: the log has no error of the process that ended")


def test_a_server_that_dies_of_its_first_request_was_at_its_first_image(planned: Plan) -> None:
    said = death(planned(dies_at=1))
    assert said[0] == (
        "the server of stand-in died in the phase 'first image' "
        "(exit code 139: SIGSEGV, a native crash)."
    )
    assert said[1] == "Root cause: Fatal Python error: Segmentation fault"


def test_a_server_that_dies_later_died_while_it_served(planned: Plan) -> None:
    server = planned(dies_at=2)
    server.start()
    client = Client(server.endpoint, server.explain_loss)
    with contextlib.closing(client), pytest.raises(ServerError) as caught:
        client.complete(CAPITAL, Sampling())
    assert str(caught.value).startswith("the server of stand-in died while it served (exit code")


def test_a_server_that_hangs_shows_the_error_that_it_hangs_in(planned: Plan) -> None:
    log = (LOGS / "018-kvbig.log").read_bytes().decode("utf-8")
    said = death(planned(budget=1.0, log=[(0, log)], healthy=False))
    assert "in the phase 'graphs'; its budget is 1 s" in said[0]
    assert "you tried to allocate 1073741824000 bytes" in said[1]


# --- and then? ------------------------------------------------------------------------------------


def lose(server: VllmServer) -> ServerError:
    """The error of a request that the server does not survive, or that finds it dead."""
    client = Client(server.endpoint, server.explain_loss, ensure=server.revive)
    with contextlib.closing(client), pytest.raises(ServerError) as caught:
        client.complete(CAPITAL, Sampling())
    return caught.value


def test_a_start_that_failed_is_not_tried_again(planned: Plan) -> None:
    server = planned(exit=1)
    with pytest.raises(ServerError) as first:
        server.start()
    with pytest.raises(ServerError) as again:
        server.start()
    with pytest.raises(ServerError) as revived:
        server.revive()
    assert first.value is again.value is revived.value
    assert server.starts == 1


def test_a_dead_server_is_started_again_for_the_next_test_but_not_within_one(planned: Plan) -> None:
    server = planned(dies_at=2)
    server.start()
    death = lose(server)
    assert lose(server) is death
    assert server.starts == 1
    server.recover()
    assert server.starts == 2
    assert lose(server) is not death


def test_a_server_that_dies_again_and_again_is_given_up(planned: Plan) -> None:
    server = planned(dies_at=2)
    server.start()
    lose(server)
    for _ in range(2):
        server.recover()
        lose(server)
    for _ in range(2):
        with pytest.raises(ServerError, match="died 3 times while it served, and is not started"):
            server.recover()
    assert server.starts == 3


def test_a_death_that_nobody_saw_is_told_before_the_server_is_started_again(planned: Plan) -> None:
    server = planned()
    server.start()
    (process,) = server.processes()
    process.kill()
    server.require_alive().wait()
    with pytest.raises(ServerError, match=r"died while it served \(exit code 137: SIGKILL"):
        server.recover()
    server.recover()
    assert server.starts == 2


def test_requests_that_are_lost_together_tell_of_one_death(planned: Plan) -> None:
    server = planned(dies_at=2)
    server.start()
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda _: lose(server), range(8)))
    assert len({id(error) for error in errors}) == 1
    server.recover()
    assert server.starts == 2


def test_a_server_that_runs_or_was_stopped_is_left_as_it_is(planned: Plan) -> None:
    server = planned()
    server.recover()
    server.start()
    server.recover()
    server.stop()
    server.recover()
    assert server.starts == 1
    assert not server.processes()
