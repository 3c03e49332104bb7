"""performance.*: a slow, failing or babbling server is caught, a sound one is not."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes import replay_vllm, simulated_npu
from fakes.counting_server import Counting
from fakes.replay_server import Behaviour, Defect, Refused, Request, State, Stub
from helpers.models import model_file
from helpers.outcome import Judged, Outcome, Serve
from helpers.paths import FIXTURES, REPOSITORY
from PIL import Image
from test_metrics import text as text_of_metrics

from pytest_ascend_vlm import Capability, Case, Completion
from pytest_ascend_vlm.criteria import agreement, performance
from pytest_ascend_vlm.errors import GoldenError
from pytest_ascend_vlm.golden import performance_runs as stored
from pytest_ascend_vlm.load.uncached import UncachedRequests
from pytest_ascend_vlm.processes.cpu_usage import CpuUsage
from pytest_ascend_vlm.session import performance as session_performance
from pytest_ascend_vlm.session import request_timing

Crash = Callable[[Request, State], Refused | None]
SECONDS = 0.01
catches = pytest.mark.catches


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest-benchmark measures nothing in a worker of xdist; the runs in here are nobody's.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setattr(request_timing, "ROUNDS", 6)
    monkeypatch.setattr(request_timing, "PAIRS", 12)


def takes(text: float = SECONDS, image: float = SECONDS) -> Behaviour:
    """A server that takes so many seconds for a request."""

    def crash(request: Request, _state: State) -> None:
        if request.stream:
            time.sleep(image if request.images else text)

    return Behaviour(crash=crash)


def fails_now_and_then() -> Behaviour:
    numbers = iter(range(10**6))

    def crash(request: Request, _state: State) -> Refused | None:
        fails = request.stream and next(numbers) % 5 == 4
        return Refused(500, "out of memory", "engine") if fails else None

    return Behaviour(crash=crash)


def in_single_file() -> Behaviour:
    lock = threading.Lock()

    def crash(_request: Request, _state: State) -> None:
        with lock:
            time.sleep(0.05)

    def sent(events: Iterator[bytes]) -> Iterator[bytes]:
        with lock:
            yield from events

    return Behaviour(crash=crash, sent=sent)


def measured(judged: Judged, url: str, what: str, *more: str) -> Outcome:
    return judged(url, "-m", "performance", "-k", what, *more)


# --- which criteria run --------------------------------------------------------------------------


def test_speed_is_measured_only_where_it_is_named(judged: Judged, stub: Serve) -> None:
    rows = judged(stub(), "-k", "models or requests_one").rows
    assert {row["criterion"] for row in rows} == {"serving.models"}


def test_side_by_side_is_refused(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("-n", "2", "-m", "performance")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*disturb each other's measurements in parallel; remove -n*"])


def test_all_but_speed_may_run_side_by_side(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_subprocess("-n", "2", "-m", "not performance").assert_outcomes(passed=1)


def test_a_project_s_own_marker_of_that_name_is_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.performance\ndef test_it(): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


# --- one at a time -------------------------------------------------------------------------------


def test_a_sound_server_passes_and_its_figures_are_kept(judged: Judged, stub: Serve) -> None:
    outcome = measured(judged, stub(takes()), "one_at_a_time")
    assert outcome.criteria("pass") == {"performance.single_stream"}, outcome.text
    text, image = outcome.rows
    names = {figure["name"] for figure in image["evidence"]["figures"]}
    assert {"image.ttft.median", "image.latency.mean", "image.tpot.mean"} <= names
    assert "image.latency.p90" not in names  # six requests cannot tell it
    latency = next(s for s in text["evidence"]["series"] if s["name"] == "latency")
    assert latency["unit"] == "s"
    assert len(latency["values"]) == 6
    assert min(latency["values"]) >= SECONDS
    assert {"image_tokens", "ttft_s"} == image["evidence"]["ttft_by_image_tokens"][0].keys()
    assert "latency.TestMinerU25.svg" in {path.name for path in outcome.directory.iterdir()}


def test_the_servers_own_times_are_those_of_the_requests_that_are_measured(
    judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first requests may be slow: they are neither in the client's times nor in these."""
    streamed: list[Request] = []

    def told(_: Stub) -> str:
        slow, quick = streamed[:2], streamed[2:]
        seconds = 60 * len(slow) + 0.25 * len(quick)
        return text_of_metrics(seconds, len(streamed))

    monkeypatch.setattr(Stub, "metrics", told)
    behaviour = Behaviour(crash=lambda one, _: streamed.append(one) if one.stream else None)
    outcome = measured(judged, stub(behaviour), "one_at_a_time and text")
    (row,) = outcome.rows
    found = {figure["name"]: figure["value"] for figure in row["evidence"]["figures"]}
    assert found["text.server_queue.mean"] == 0.25


@pytest.fixture
def tolerant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose other work delays the client of this test is no fault of the server."""
    monkeypatch.setattr(agreement, "SERVER_TIME_TOLERANCE", 1000.0)


@pytest.mark.parametrize("what", ["one_at_a_time and text", "prefill", "load_is_answered and c2"])
@pytest.mark.usefixtures("generated", "tolerant")
def test_times_that_the_server_counts_too_are_compared(
    what: str, judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Counting()
    monkeypatch.setattr(Stub, "metrics", lambda _: server.metrics())
    outcome = measured(judged, stub(server.behaviour), what)
    (row,) = outcome.rows
    assert row["status"] == "pass", outcome.text
    assert "the server's own times agree: TTFT " in row["finding"]


@pytest.mark.usefixtures("tolerant")
def test_the_wire_of_tokens_without_text_is_known(
    judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token of an answer may be a part of a character."""
    server = Counting()
    monkeypatch.setattr(Stub, "metrics", lambda _: server.metrics())
    behaviour = replace(server.behaviour, deltas=lambda text: [text] if text[1:] else [])
    outcome = measured(judged, stub(behaviour), "one_at_a_time and text")
    (row,) = outcome.rows
    assert "the server's own times agree" in row["finding"], outcome.text


@pytest.mark.parametrize("what", ["one_at_a_time and text", "load_is_answered and c2"])
@pytest.mark.usefixtures("generated")
def test_times_that_the_server_contradicts_are_an_error(
    what: str, judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Counting(is_buffered=True)
    monkeypatch.setattr(Stub, "metrics", lambda _: server.metrics())
    outcome = measured(judged, stub(server.behaviour), what)
    (row,) = outcome.rows
    assert row["status"] == "error", outcome.text
    assert "the times that the client measured are not those of the server's own" in row["reason"]


def test_a_limit_of_a_time_that_the_server_contradicts_is_an_error(
    project: pytest.Pytester, judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Counting(is_buffered=True)
    monkeypatch.setattr(Stub, "metrics", lambda _: server.metrics())
    limited(project, "text.latency.median", SLOW)
    outcome = full(judged, stub(server.behaviour), "limits")
    assert outcome.criteria("error") == {"performance.limits"}, outcome.text


def test_times_are_not_compared_where_others_use_the_server(
    judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Counting(is_buffered=True, others=1)
    monkeypatch.setattr(Stub, "metrics", lambda _: server.metrics())
    outcome = measured(judged, stub(server.behaviour), "one_at_a_time and text")
    (row,) = outcome.rows
    assert row["status"] == "pass", outcome.text
    assert "it counted 12 requests while 6 were measured" in row["finding"]


def test_times_are_not_compared_where_the_server_counts_none(judged: Judged, stub: Serve) -> None:
    outcome = measured(judged, stub(takes()), "one_at_a_time and text")
    (row,) = outcome.rows
    assert "the times were not compared with the server's own" in row["finding"]


@pytest.mark.parametrize(
    "behaviour",
    [fails_now_and_then(), Defect.EXCLAMATION_MARKS.value, Defect.EMPTY_ANSWER.value],
    ids=["fails now and then", "exclamation marks", "empty"],
)
@catches("performance.single_stream")
def test_a_server_that_does_not_answer_is_not_fast(
    behaviour: Behaviour, judged: Judged, stub: Serve
) -> None:
    outcome = measured(judged, stub(behaviour), "one_at_a_time")
    assert outcome.criteria("fail") == {"performance.single_stream"}, outcome.text


def test_a_workload_that_is_skipped_leaves_no_stopwatch_unused(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    declared = "input_tokens=8, concurrency=2, tool='latency'"
    model_file(project, "    pass", workloads=WORKLOAD.format("offline", declared))
    outcome = measured(judged, stub(), "performance.workload", "test_own_model.py")
    assert outcome.criteria("skip") == {"performance.workload"}
    assert "fixture was not used" not in outcome.text


def test_a_switched_off_stopwatch_is_an_error(judged: Judged, stub: Serve) -> None:
    outcome = measured(judged, stub(), "one_at_a_time", "--benchmark-disable")
    assert outcome.criteria("error") == {"performance.single_stream"}
    assert "--benchmark-disable" in outcome.text


@pytest.mark.parametrize(
    ("image", "status"),
    [(0.02, "pass"), pytest.param(0.4, "fail", marks=catches("performance.image_prefill"))],
)
def test_an_image_costs_what_an_encoder_costs(
    image: float, status: str, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    # The stub needs some time of its own for a text, so a bar of 20 would take seconds an image.
    model_file(project, "    pass", thresholds="Thresholds(prefill_ratio=3)")
    outcome = measured(judged, stub(takes(0.02, image)), "prefill", "test_own_model.py")
    assert outcome.criteria(status) == {"performance.image_prefill"}, outcome.text


# --- against another -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "status"),
    [
        (1.0, "pass"),
        pytest.param(2.0, "fail", marks=catches("performance.regression")),
        (0.5, "pass"),
    ],
)
def test_a_slower_server_is_caught(factor: float, status: str, judged: Judged, stub: Serve) -> None:
    seconds = 0.1  # long beside what this process needs for itself
    there = stub(takes(seconds, seconds))
    here = stub(takes(seconds * factor, seconds * factor))
    outcome = measured(judged, here, "compared", f"--vlm-compare-url={there}")
    assert outcome.criteria(status) == {"performance.regression"}, outcome.text
    assert {row["case"] for row in outcome.rows} == {"text", "image"}


def test_the_speed_of_wrong_answers_is_not_compared(judged: Judged, stub: Serve) -> None:
    there = stub(Defect.EXCLAMATION_MARKS.value)
    outcome = measured(judged, stub(), "compared and image", f"--vlm-compare-url={there}")
    (row,) = outcome.rows
    assert row["status"] == "error"
    assert "image, the compared endpoint: 12 of 12 requests got no valid answer" in row["reason"]


def test_without_another_there_is_nothing_to_compare(judged: Judged, stub: Serve) -> None:
    outcome = measured(judged, stub(), "compared")
    assert outcome.criteria("na") == {"performance.regression"}
    assert "--vlm-compare-url" in outcome.rows[0]["reason"]


# --- stored runs and limits ----------------------------------------------------------------------


@catches("performance.baseline")
@pytest.mark.usefixtures("generated")
def test_a_gate_judges_by_stored_runs_from_the_third_on(
    judged: Judged, stub: Serve, project: pytest.Pytester
) -> None:
    what, gate = "stored", ("--vlm-gate", "-o", "vlm_required=speed.txt")
    (project.path / "speed.txt").write_text("TestMinerU25 performance.baseline\n", "utf-8")
    url = stub(takes())
    nothing = measured(judged, url, what, *gate)
    assert nothing.result.ret != 0
    assert "0 of 3 runs of this key are stored; store more with --vlm-save" in nothing.text
    assert measured(judged, url, what, "--vlm-save-performance").result.ret == 0
    (path,) = (project.path / "performance").rglob("*.json")
    document = json.loads(path.read_text("utf-8"))
    measured_of = {performance.measurement_of(figure) for figure in document["runs"][0]}
    # An endpoint's processes cannot be seen; all else is measured, whatever runs beside it.
    assert measured_of == {*performance.MEASUREMENTS, "workload.text", "workload.page"} - {"cpu"}

    def stored_on(factor: float, of_page: float) -> Outcome:
        """A run beside stored ones of hosts that were as calm as this one may not be."""
        run = {
            name: value
            * (of_page if name.startswith("workload.page.") else factor)
            ** (-1 if name.endswith(("throughput", "goodput")) else 1)
            for name, value in document["runs"][0].items()
        }
        path.write_text(json.dumps({**document, "runs": [run] * 3}), "utf-8")
        return measured(judged, url, what, *gate)

    # The other host took far longer, or far less time for the pages of a workload.
    sound, slower = stored_on(1000, 1000), stored_on(1000, 0.001)
    assert sound.result.ret == 0, sound.text
    assert slower.result.ret != 0
    assert slower.criteria("fail") == {"performance.baseline"}, slower.text
    (row,) = (row for row in slower.rows if row["status"] == "fail")
    bounds = row["evidence"]["slower_at_least"]
    assert {name for name, bound in bounds.items() if bound > 1.1} == {
        name for name in bounds if name.startswith("workload.page.")
    }


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cards that are not there, and the stub in the place of vLLM's server."""
    pair = {"vllm_version": "0.18.0", "ascend_version": "0.18.0rc1"}
    plan = simulated_npu.install(tmp_path / "npu", **pair)
    stub = str(replay_vllm.install(tmp_path / "stub"))
    # This process reads the installed versions, the server's process imports the stub.
    monkeypatch.syspath_prepend(tmp_path / "npu" / "site")
    plan["PYTHONPATH"] = os.pathsep.join([stub, plan["PYTHONPATH"]])
    for name, value in {**plan, "STUB_ROOT": str(REPOSITORY)}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.skipif(any(Path("/dev").glob("davinci[0-9]*")), reason="this host has real cards")
@pytest.mark.usefixtures("generated", "tolerant", "simulated")
def test_a_gate_of_speed_opens_on_an_npu_after_three_runs(
    judged: Judged, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that closes it then is that the cards are simulated, as every gate."""
    monkeypatch.setattr(session_performance, "_IDLE_SECONDS", 1.0)
    (project.path / "speed.txt").write_text("TestMinerU25 performance.baseline\n", "utf-8")

    def run(*more: str) -> Outcome:
        return judged(None, "-m", "performance", "-k", "stored", "--vlm-requests=8", *more)

    def closed(outcome: Outcome) -> list[str]:
        told = [line for line in outcome.text.splitlines() if line.startswith("gate: ")]
        return [line for line in told if "the cards are simulated" not in line]

    gate = ("--vlm-gate", "-o", "vlm_required=speed.txt")
    (nothing,) = closed(run(*gate))
    assert ": skip: 0 of 3 runs of this key are stored; store more with --vlm-save-" in nothing
    saved = run("--vlm-save-performance")
    assert saved.result.ret == 0, saved.text
    (path,) = (project.path / "performance").rglob("*.json")
    document = json.loads(path.read_text("utf-8"))
    assert len(document["runs"]) == 1
    assert "SIMULATED" in document["key"]["device"]

    def as_slow_as(factor: float) -> None:
        """Stored runs of a host that was as calm as this one may not be."""
        run = {
            name: value * factor ** (-1 if name.endswith(("throughput", "goodput")) else 1)
            for name, value in document["runs"][0].items()
        }
        path.write_text(json.dumps({**document, "runs": [run] * 3}), "utf-8")

    as_slow_as(1000)
    sound = run(*gate)
    assert sound.criteria("pass") == {"performance.baseline"}, sound.text
    assert closed(sound) == []
    as_slow_as(1)
    monkeypatch.setenv("STUB_SLOW", "3")
    slower = run(*gate)
    assert slower.criteria("fail") == {"performance.baseline"}, slower.text
    (line,) = closed(slower)
    assert ": fail: " in line
    bounds = slower.rows[0]["evidence"]["slower_at_least"]
    assert bounds["text.latency.median"] > 1.1
    assert bounds["workload.text.latency.median"] > 1.1


KEY = {"device": "Ascend 910B4", "versions": {"CANN": "8.5.1"}, "workload": "读出全文"}


def test_runs_of_another_key_are_another_file(tmp_path: Path) -> None:
    for count in (1, 2):
        stored.append(stored.load(tmp_path, "a--model", KEY), {"image.ttft.median": 0.6})
        assert len(stored.load(tmp_path, "a--model", KEY).runs) == count
    other = {**KEY, "versions": {"CANN": "8.6.0"}}
    assert stored.load(tmp_path, "a--model", other).runs == ()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: text.replace("910B4", "910B3"),
        lambda text: text.replace("0.6", '"fast"'),
        lambda text: text.replace("0.6", "NaN"),
        lambda text: text.replace('"runs"', '"walks"'),
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda _: "[]",
    ],
    ids=["cut off", "other device", "text", "NaN", "no runs", "other schema", "list"],
)
def test_a_damaged_file_is_an_error(damage: Callable[[str], str], tmp_path: Path) -> None:
    path = stored.append(stored.load(tmp_path, "a--model", KEY), {"image.ttft.median": 0.6})
    path.write_text(damage(path.read_text("utf-8")), "utf-8")
    with pytest.raises(GoldenError, match="--vlm-save-performance"):
        stored.load(tmp_path, "a--model", KEY)


def test_a_limit_of_nothing_that_is_measured_is_refused(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    model_file(
        project, "    pass", limits="(__import__('pytest_ascend_vlm').Limit('ttft', 2, 'x'),)"
    )
    outcome = judged(stub(), "-m", "performance", "test_own_model.py")
    assert "no metric has that name" in outcome.text


LIMITS = "(__import__('pytest_ascend_vlm').Limit('{}', {}, device='127.0.0.1'),)"
SLOW, FAST = 600, 0.0001
"""Limits, in seconds, that every and no server keeps."""


def limited(project: pytest.Pytester, figure: str, value: float) -> None:
    """A model file whose model has a limit for every endpoint of this host."""
    model_file(project, "    pass", limits=LIMITS.format(figure, value))


def full(judged: Judged, url: str, what: str, *more: str) -> Outcome:
    """A run of the full checkpoint: limits are about no other."""
    arguments = ("-m", "performance", "-k", what, "--vlm-requests=8", "test_own_model.py")
    return judged(url, *arguments, *more, checkpoint="full")


@pytest.mark.parametrize(
    "figure",
    [
        "text.latency.median",
        "image.ttft.mean",
        "image.prefill.median",
        "load.c2.latency.mean",
        "load.ramp.latency.median",
    ],
)
@pytest.mark.usefixtures("generated")
def test_a_limit_is_judged_alone_by_what_it_needs(
    figure: str, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    limited(project, figure, SLOW)
    outcome = full(judged, stub(takes()), "limits")
    assert outcome.criteria("pass") == {"performance.limits"}, outcome.text
    (line,) = outcome.rows[0]["evidence"]["limits"]
    assert line["text"].startswith(f"{figure}: ")


@catches("performance.limits")
@pytest.mark.parametrize("what", ["limits", "limits or one_at_a_time"])
def test_a_limit_that_is_missed_fails_whatever_else_runs(
    what: str, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    limited(project, "image.latency.median", FAST)
    outcome = full(judged, stub(takes()), what)
    assert outcome.criteria("fail") == {"performance.limits"}, outcome.text


REVERSED = "def pytest_collection_modifyitems(items):\n    items.reverse()\n"


@pytest.mark.parametrize("order", ["", REVERSED], ids=["in order", "reversed"])
def test_who_asks_first_changes_no_figure(
    order: str, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    project.makeconftest(order)
    limited(project, "image.latency.median", SLOW)
    asked: list[Request] = []

    def crash(request: Request, _state: State) -> None:
        if request.stream:
            asked.append(request)

    stopwatch = f"--benchmark-json={project.path / 'stopwatch.json'}"
    outcome = full(judged, stub(Behaviour(crash=crash)), "limits or one_at_a_time", stopwatch)
    rows = {(row["criterion"], row["case"]): row for row in outcome.rows}
    limits = rows["performance.limits", None]
    series = rows["performance.single_stream", "image"]["evidence"]["series"]
    latencies = next(one["values"] for one in series if one["name"] == "latency")
    median = statistics.median(latencies)
    assert limits["evidence"]["limits"][0]["text"].startswith(
        f"image.latency.median: {median:.4g} s,"
    )
    # Both kinds were asked once: warm-up requests, then those that count.
    assert len(asked) == 2 * (request_timing.WARMUPS + request_timing.ROUNDS)
    timed = json.loads((project.path / "stopwatch.json").read_text("utf-8"))["benchmarks"]
    data = {one["param"]: one["stats"]["data"] for one in timed}
    assert data["image"] == pytest.approx(latencies)


@pytest.mark.parametrize(
    ("figure", "behaviour", "told"),
    [
        ("cpu.peak", takes(), "the CPU usage of a server that the suite did not start"),
        ("image.latency.p99", takes(), "p99 needs at least 299 requests"),
        ("image.server_queue.mean", takes(), "/metrics"),
        ("text.latency.median", Defect.TEXT_GIVES_500.value, "performance.single_stream judges"),
        ("text.latency.median", Defect.EXCLAMATION_MARKS.value, "a run of"),
        ("load.c2.latency.mean", Defect.EXCLAMATION_MARKS.value, "performance.load judges"),
    ],
)
@pytest.mark.usefixtures("generated")
def test_a_limit_of_what_cannot_be_measured_is_no_failure_of_the_model(
    *,
    figure: str,
    behaviour: Behaviour,
    told: str,
    project: pytest.Pytester,
    judged: Judged,
    stub: Serve,
) -> None:
    limited(project, figure, SLOW)
    outcome = full(judged, stub(behaviour), "limits")
    assert outcome.criteria("error") == {"performance.limits"}, outcome.text
    assert told in outcome.rows[0]["reason"]


def test_limits_are_not_for_tiny_checkpoints(judged: Judged, stub: Serve) -> None:
    outcome = measured(judged, stub(), "limits")
    assert outcome.criteria("na") == {"performance.limits"}


# --- cold requests -------------------------------------------------------------------------------


def test_no_two_requests_share_an_image(tmp_path: Path) -> None:
    page = next(iter(sorted((FIXTURES / "documents").rglob("*.png"))))
    case = Case("document/一", Capability.DOCUMENT, "读", images=(page,))
    cold = UncachedRequests(tmp_path)
    seen = {Image.open(cold.case(case).images[0]).tobytes() for _ in range(1100)}
    assert len(seen) == 1100
    original = Image.open(page).convert("RGB").tobytes()
    assert {other[:-3] for other in seen} == {original[:-3]}
    largest = max(
        abs(a - b) for other in seen for a, b in zip(other[-3:], original[-3:], strict=True)
    )
    assert largest < 32
    assert len({cold.sampling(1).cache_salt for _ in range(9)}) == 9


# --- CPU usage -----------------------------------------------------------------------------------


def test_cpu_use_is_that_of_the_processes() -> None:
    commands = {"busy": "while True: pass", "idle": "input()"}
    started = {
        name: subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        for name, code in commands.items()
    }
    seen = {name: psutil.Process(process.pid) for name, process in started.items()}
    uses = {name: CpuUsage([process].copy) for name, process in seen.items()}
    try:
        with uses["busy"], uses["idle"]:
            # On a busy host it may take seconds until the one that counts gets a core at all.
            while seen["busy"].cpu_times().user < 1:
                time.sleep(0.1)
    finally:
        for process in started.values():
            process.kill()
            process.communicate()
    assert sum(uses["idle"].samples) < sum(uses["busy"].samples) / 4
    assert all(value >= 0 for use in uses.values() for value in use.samples)


def test_a_process_that_ends_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    with CpuUsage(lambda: [psutil.Process(process.pid)] if process.poll() is None else []):
        process.wait()
        time.sleep(0.6)


@catches("performance.scaling")
@pytest.mark.usefixtures("generated")
def test_scaling_is_that_of_the_server(judged: Judged, stub: Serve) -> None:
    few = "--vlm-requests=16"
    outcome = measured(judged, stub(takes(0.2, 0.2)), "scales", few)
    assert outcome.criteria("pass") == {"performance.scaling"}, outcome.text
    outcome = measured(judged, stub(in_single_file()), "scales", few)
    assert outcome.criteria("fail") == {"performance.scaling"}, outcome.text
    outcome = measured(judged, stub(Defect.EXCLAMATION_MARKS.value), "scales", few)
    assert outcome.criteria("error") == {"performance.scaling"}, outcome.text


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (takes(), "pass"),
        pytest.param(fails_now_and_then(), "fail", marks=catches("performance.load")),
        pytest.param(Defect.EXCLAMATION_MARKS.value, "fail", marks=catches("performance.load")),
        pytest.param(Defect.ANOTHER_PAGE_IS_READ.value, "fail", marks=catches("performance.load")),
    ],
    ids=["sound", "fails now and then", "exclamation marks", "another page"],
)
@pytest.mark.usefixtures("generated")
def test_a_load_is_answered(behaviour: Behaviour, status: str, judged: Judged, stub: Serve) -> None:
    outcome = measured(judged, stub(behaviour), "load_is_answered and c8")
    assert outcome.criteria(status) == {"performance.load"}, outcome.text
    if status == "pass":
        (row,) = outcome.rows
        assert row["evidence"]["sweep"]["concurrency"] == 8


WORKLOAD = "(__import__('pytest_ascend_vlm').Workload('{}', requests=4, {}),)"


@pytest.mark.parametrize(
    ("declared", "conditions"),
    [
        ("input_tokens=200, output_tokens=32, concurrency=2", {"input_tokens": 200}),
        ("image_tokens=640, output_tokens=32, concurrency=1", {"image_tokens": 640}),
        (
            "input_tokens=200, image_tokens=640, output_tokens=32, request_rate=50.0",
            {"input_tokens": 200, "image_tokens": 640, "request_rate": 50},
        ),
    ],
    ids=["text", "pages", "mixed"],
)
@pytest.mark.usefixtures("generated")
def test_a_workload_is_sent_as_it_is_declared(
    declared: str,
    conditions: dict[str, int],
    project: pytest.Pytester,
    judged: Judged,
    stub: Serve,
) -> None:
    model_file(project, "    pass", workloads=WORKLOAD.format("a/load", declared))
    outcome = measured(judged, stub(), "performance.workload", "test_own_model.py")
    assert outcome.criteria("pass") == {"performance.workload"}, outcome.text
    (row,) = outcome.rows
    assert row["case"] == "a/load"
    found = row["evidence"]["conditions"]
    assert (found["requests"], found["output_tokens"]) == (4, 32)
    for name, tokens in conditions.items():
        assert found[name] == pytest.approx(tokens, rel=0.02), name
    assert row["evidence"]["untold"].startswith("4 requests cannot tell p90")
    names = {figure["name"] for figure in row["evidence"]["figures"]}
    assert {"workload.a/load.ttft.median", "workload.a/load.output_throughput"} <= names


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(behaviour, marks=catches("performance.workload"))
        for behaviour in (Defect.IGNORES_IGNORE_EOS.value, fails_now_and_then())
    ],
    ids=["ends as it likes", "fails now and then"],
)
@pytest.mark.usefixtures("generated")
def test_a_workload_that_is_not_answered_as_declared_fails(
    behaviour: Behaviour, project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    declared = "input_tokens=200, output_tokens=64, concurrency=2"
    model_file(project, "    pass", workloads=WORKLOAD.format("text", declared))
    outcome = measured(judged, stub(behaviour), "performance.workload", "test_own_model.py")
    assert outcome.criteria("fail") == {"performance.workload"}, outcome.text


@pytest.mark.usefixtures("generated")
def test_a_prompt_that_no_text_makes_is_an_error(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    declared = "input_tokens=1, output_tokens=64, concurrency=2"
    model_file(project, "    pass", workloads=WORKLOAD.format("text", declared))
    outcome = measured(judged, stub(), "performance.workload", "test_own_model.py")
    assert outcome.criteria("error") == {"performance.workload"}, outcome.text
    assert "no text makes a prompt of 1 tokens" in outcome.text


def test_without_a_workload_or_a_limit_nothing_is_judged(
    project: pytest.Pytester, judged: Judged, stub: Serve
) -> None:
    model_file(project, "    pass")
    outcome = measured(judged, stub(), "performance.workload or limits", "test_own_model.py")
    assert outcome.criteria("na") == {"performance.workload", "performance.limits"}
    reasons = {row["reason"] for row in outcome.rows}
    assert any("`ascend-vlm limits` then prints" in reason for reason in reasons)


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load generator in this process; the real ones are in test_load.py."""
    from concurrent.futures import ThreadPoolExecutor

    from pytest_ascend_vlm.engines.client import Client
    from pytest_ascend_vlm.engines.endpoint import Endpoint
    from pytest_ascend_vlm.errors import ServerError
    from pytest_ascend_vlm.load import generator
    from pytest_ascend_vlm.observation.load import Load, Timing

    def generate(traffic: generator.Traffic, endpoint: Endpoint, *_: Any) -> Load:
        client = Client(endpoint, lambda: None)

        def stream(case: Case) -> Completion:
            if traffic.exact:
                return client.stream_all_with(case, {"ignore_eos": True})[0]
            return client.stream(case, bare=True)

        def ask(case: Case) -> Timing | str:
            try:
                return request_timing.timing_of(stream(case))
            except ServerError as error:
                return str(error)

        since = time.perf_counter()
        with ThreadPoolExecutor(traffic.concurrency) as pool:
            answers = list(pool.map(ask, traffic.requests))
        seconds = time.perf_counter() - since
        timings = tuple(one for one in answers if isinstance(one, Timing))
        errors = tuple(one for one in answers if isinstance(one, str))
        goodput = len(timings) / seconds if traffic.goodput else None
        told = ("threads of this test", traffic.concurrency, seconds, timings, errors, goodput)
        return Load(*told)

    monkeypatch.setattr(generator, "generate", generate)
