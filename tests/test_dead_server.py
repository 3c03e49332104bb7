"""A server that dies: what is said of it, and by whom."""

from __future__ import annotations

import contextlib
import json
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.outcome import documents
from helpers.three_models import judge

from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.vllm.server import Launch, VllmServer
from pytest_ascend_vlm.errors import ServerError
from pytest_ascend_vlm.reporting.language import LANGUAGES
from pytest_ascend_vlm.reporting.rows import name_of
from pytest_ascend_vlm.spec.case import Capability, Case, Sampling
from pytest_ascend_vlm.spec.model import Budgets

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
    # Enough for a busy host to start the process that writes this log.
    said = death(planned(budget=6.0, log=[(0, log)], healthy=False))
    assert "was still in the phase 'graphs' after " in said[0]
    assert "; its budget is 6 s" in said[0]
    assert "you tried to allocate 1073741824000 bytes" in said[1]


# --- and then? ------------------------------------------------------------------------------------


def lose(server: VllmServer) -> ServerError:
    """The error of a request that the server does not survive, or that finds it dead."""
    client = Client(server.endpoint, server.explain_loss, ensure=server.ensure_running)
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
        server.ensure_running()
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


def kill_supervisor(server: VllmServer) -> None:
    """Kills the process that watches the server; the server dies with it, a moment later."""
    processes = server.processes()
    server.require_alive().kill()
    _, alive = psutil.wait_procs(processes, timeout=60.0)
    assert not alive


def test_if_the_supervisor_is_killed_nobody_knows_what_is_left(planned: Plan) -> None:
    server = planned()
    server.start()
    kill_supervisor(server)
    with pytest.raises(ServerError, match="ended by SIGKILL, so it is unknown which"):
        server.stop()


def test_the_test_after_the_death_of_the_supervisor_has_a_server(planned: Plan) -> None:
    server = planned()
    server.start()
    kill_supervisor(server)
    assert "died while it served" in str(lose(server))
    server.recover()
    assert server.starts == 2


def test_requests_that_are_lost_together_tell_of_one_death(planned: Plan) -> None:
    server = planned(hang_from=2)
    server.start()
    with ThreadPoolExecutor(8) as pool:
        lost = [pool.submit(lose, server) for _ in range(8)]
        while "request 9" not in server.log_path.read_text("utf-8"):
            time.sleep(0.05)
        server.processes()[0].kill()
    assert len({id(error.result()) for error in lost}) == 1
    server.recover()
    assert server.starts == 2


def test_a_burst_starts_a_stopped_server_once(planned: Plan) -> None:
    server = planned()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: server.ensure_running(), range(8)))
    assert server.starts == 1


def test_a_server_that_runs_or_was_stopped_is_left_as_it_is(planned: Plan) -> None:
    server = planned()
    server.recover()
    server.start()
    server.recover()
    server.stop()
    server.recover()
    assert server.starts == 1
    assert not server.processes()


# --- one finding a model --------------------------------------------------------------------------

NO_LIBRARY = json.dumps({"exit": 1, "last_words": str(LOGS / "018-nolib.log")})
CPU = ("--vlm-platform=cpu", "-p", "no:cacheprovider", "-p", "no:randomly")
ASKED = "ready_within or text_is_answered or own"  # tests that need no more than a server
CAUSE = "Root cause (EngineCore, pid 4869): RuntimeError: libtcmalloc is not found"


def red(document: Any, suite_class: str) -> list[dict[str, Any]]:
    """The errors of a class; a dead server leaves nothing else red."""
    rows = [row for row in document["rows"] if row["suite_class"] == suite_class]
    assert not [row for row in rows if row["status"] in {"pass", "fail", "xfail"}]
    return [row for row in rows if row["status"] == "error"]


def assert_one_finding(rows: list[dict[str, Any]], suite_class: str) -> None:
    """Asserts that the first row has the error in full, and the others refer to it."""
    first, *others = rows
    assert CAUSE in first["reason"]
    assert first["told_at"] is None
    assert others
    for row in others:
        assert "\n" not in row["reason"]
        assert row["reason"].startswith("the server of stand-in/")
        assert f"in full at test_models.py::{suite_class}::" in row["reason"]
        assert row["told_at"] == name_of(first["criterion"], first["case"])


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_dead_server_is_one_finding_a_model(workers: tuple[str, ...], three_models: Path) -> None:
    arguments = (*CPU, "-k", ASKED, *workers, "--junitxml=j.xml")
    done, document = judge(three_models, *arguments, STAND_IN=NO_LIBRARY)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    classes = ("TestSmall", "TestMiddle", "TestLarge")
    errors = {name: red(document, name) for name in classes}
    for name, rows in errors.items():
        assert_one_finding(rows, name)
    # TestMiddle has a test of its own that has no row.
    more = sorted(len(rows) - 1 + (name == "TestMiddle") for name, rows in errors.items())
    said = [line for line in done.stdout.splitlines() if line.startswith("and ")]
    assert sorted(said) == sorted(f"and {count} more tests that it stopped" for count in more)
    assert done.stdout.count(CAUSE) == len(classes)
    assert len(re.findall("^ERROR test_models", done.stdout, re.MULTILINE)) in {0, len(classes)}
    assert re.search(rf"3 errors, {sum(more)} more", done.stdout)
    criteria = {(name, row["criterion"]) for name, rows in errors.items() for row in rows}
    assert f"; {len(criteria)} error" in done.stdout.splitlines()[-1]
    (suite,) = ET.parse(three_models / "j.xml").getroot()  # noqa: S314
    told = [error.text or "" for error in suite.iter("error")]
    assert len(told) == int(suite.get("errors", 0)) == sum(more) + len(classes)
    assert sum(CAUSE in text for text in told) == len(classes)
    assert document["receipt"]["server_starts"] == len(classes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_document_tells_it_once_with_the_count(language: str, three_models: Path) -> None:
    arguments = (*CPU, "-k", f"TestSmall and ({ASKED})")
    _, document = judge(three_models, *arguments, STAND_IN=NO_LIBRARY)
    text = "\n".join(documents(three_models / "report", language))
    cause = {"en": CAUSE, "zh": CAUSE.partition("): ")[2]}[language]
    assert text.count(cause) == 1
    more = len(red(document, "TestSmall")) - 1
    assert {"en": f"stopped {more} more.", "zh": f"以及另外 {more} 项"}[language] in text


@pytest.mark.parametrize(
    ("options", "times"),
    [(["-x"], 1), (["--tb=short"], 1), (["-rA"], 1), (["-q", "-q"], 1), (["--tb=no"], 0)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_it_is_printed_once_however_pytest_is_told_to(
    options: list[str], times: int, three_models: Path
) -> None:
    arguments = (*CPU, "-k", f"TestSmall and ({ASKED})", *options)
    done, document = judge(three_models, *arguments, STAND_IN=NO_LIBRARY)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert done.stdout.count(CAUSE) == times
    assert done.stdout.count("ERROR at setup") <= 1
    rows = red(document, "TestSmall")
    if options == ["-x"]:
        assert len(rows) == 1
    else:
        assert_one_finding(rows, "TestSmall")


def test_tests_that_are_run_again_start_no_server_again(three_models: Path) -> None:
    arguments = (*CPU, "-k", "TestSmall and text_is_answered", "--reruns=2")
    done, document = judge(three_models, *arguments, STAND_IN=NO_LIBRARY)
    assert "rerun" in done.stdout
    assert done.stdout.count(CAUSE) == 1
    assert_one_finding(red(document, "TestSmall"), "TestSmall")
    assert document["receipt"]["server_starts"] == 1
    assert [path.name for path in (three_models / "logs").glob("*/*.log")] == [
        "stand-in--small-TestSmall.log"
    ]


def test_a_server_that_dies_in_test_after_test_is_given_up(three_models: Path) -> None:
    plan = json.dumps({"dies_at": 2})
    arguments = (*CPU, "-k", "TestSmall and text_is_answered")
    done, document = judge(three_models, *arguments, STAND_IN=plan)
    first, second, third, given_up, *others = red(document, "TestSmall")
    for row in (first, second, third):
        assert row["reason"].startswith("the server of stand-in/small died while it served")
        assert row["told_at"] is None
    assert "died 3 times while it served" in given_up["reason"]
    assert given_up["told_at"] is None
    assert others
    assert {row["told_at"] for row in others} == {f"serving.text[{given_up['case']}]"}
    assert document["receipt"]["server_starts"] == 3
    assert "4 errors" in done.stdout
