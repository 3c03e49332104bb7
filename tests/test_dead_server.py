"""A server that dies: what is said of it, and by whom."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
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
