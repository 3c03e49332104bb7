"""The parts of `pytest --vlm-ray` that need no Ray: order, places, reasons, and the run loop."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fleet_makespan
import pytest

from pytest_ascend_vlm.errors import HostError
from pytest_ascend_vlm.scheduling import reasons
from pytest_ascend_vlm.scheduling.driver import _OF_DRIVER
from pytest_ascend_vlm.scheduling.jobs import Job, in_order, placed
from pytest_ascend_vlm.scheduling.node import judge
from pytest_ascend_vlm.scheduling.overview import is_ready, lines
from pytest_ascend_vlm.scheduling.ray import Arrival, Node
from pytest_ascend_vlm.scheduling.spread import Observer, Place, Spread
from pytest_ascend_vlm.scheduling.work import Work, is_plain
from pytest_ascend_vlm.session.fleet import Fleet, Host, listed, mixed, other_suites


def names(jobs: Sequence[Job]) -> list[str]:
    return [job.name for job in jobs]


def anywhere(*_: object) -> bool:
    return True


def test_without_durations_most_cards_are_first() -> None:
    jobs = [Job("one", 1), Job("four", 4), Job("two", 2)]
    assert names(in_order(jobs)) == ["four", "two", "one"]


def test_most_card_seconds_are_first() -> None:
    jobs = [Job("short", 2, seconds=10), Job("long", 1, seconds=90), Job("middle", 2, seconds=30)]
    assert names(in_order(jobs)) == ["long", "middle", "short"]


def test_an_unknown_duration_counts_as_the_longest() -> None:
    jobs = [Job("known", 1, seconds=10), Job("new", 1), Job("longest", 1, seconds=90)]
    assert names(in_order(jobs)) == ["new", "longest", "known"]


def test_what_does_not_fit_waits_and_smaller_jobs_start() -> None:
    jobs = [Job("eight", 8), Job("two", 2), Job("one", 1)]
    assert [(job.name, host) for job, host in placed(jobs, {"a": 4, "b": 3}, anywhere)] == [
        # A large job waits: the small ones leave the large gap to it.
        ("two", "b"),
        ("one", "b"),
    ]


def test_small_jobs_take_the_emptiest_host_if_nothing_large_waits() -> None:
    jobs = [Job("first", 1), Job("second", 1)]
    assert [host for _, host in placed(jobs, {"a": 2, "b": 4, "c": 4}, anywhere)] == ["b", "c"]


def test_a_job_goes_only_where_it_may_run() -> None:
    def on_b(_: Job, host: str) -> bool:
        return host == "b"

    assert [host for _, host in placed([Job("x", 1)], {"a": 8, "b": 2}, on_b)] == ["b"]


def test_a_hundred_models_take_little_more_than_the_lower_bound() -> None:
    for hosts in (1, 2, 4, 8):
        _, ratio = fleet_makespan.ratio(100, hosts)
        assert 1.0 <= ratio <= fleet_makespan.HIGHEST_RATIO


def test_the_makespan_of_two_jobs_on_one_card_is_their_sum() -> None:
    jobs = [Job("a", 1, seconds=3.0), Job("b", 1, seconds=4.0)]
    assert fleet_makespan.makespan(jobs, {"host": 1}) == 7.0
    assert fleet_makespan.makespan(jobs, {"host": 2}) == 4.0


SET_UP = {
    "platform": "npu",
    "checkpoint": "full",
    "simulated": False,
    "device": "8 x 910B4",
    "versions": {"vllm": "0.18.0", "CANN": "8.5.1"},
    "environment": {"python": "3.11.9", "os": "Ubuntu", "device_memory_mib": 32768},
    "serve_overrides": {},
}


def host(name: str, cards: int = 8, set_up: Mapping[str, Any] = SET_UP, **more: Any) -> Host:
    return Host(name, cards, "the NPU", set_up, **more)


def test_hosts_with_other_numbers_of_cards_are_alike() -> None:
    small = {**SET_UP, "device": "2 x 910B4"}
    assert mixed([host("a"), host("b", 2, small)]) == []


def test_a_host_with_another_suite_than_the_driver_is_named() -> None:
    same = {**SET_UP, "suite_sha256": "a" * 64}
    other = {**SET_UP, "suite_sha256": "b" * 64}
    # Two hosts that are alike may both differ from the process that selects the tests.
    hosts = [host("a", set_up=other), host("b", set_up=other)]
    assert mixed(hosts) == []
    assert [line.split(":")[1].split()[0] for line in other_suites(hosts, "a" * 64)] == ["a", "b"]
    assert other_suites([host("a", set_up=same)], "a" * 64) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"versions": {"vllm": "0.23.0", "CANN": "8.5.1"}}, "versions: vllm: 0.18.0 on a, 0.23.0"),
        ({"versions": {"vllm": "0.18.0", "CANN": "9.1.0"}}, "versions: CANN: 8.5.1 on a, 9.1.0"),
        ({"device": "8 x 910B2"}, "device: 910B4 on a, 910B2 on b"),
        ({"simulated": True}, "simulated: false on a, true on b"),
    ],
)
def test_hosts_that_differ_are_named(changed: Mapping[str, Any], line: str) -> None:
    (found,) = mixed([host("a"), host("b", set_up={**SET_UP, **changed})])
    assert found.startswith(line)


def test_environment_variables_and_libraries_of_hosts_are_compared() -> None:
    here, there = "a" * 64, "b" * 64
    one = host("a", conditions={"variable HCCL_DETERMINISTIC": here, "version of pillow": "12.0"})
    other = host("b", conditions={"variable HCCL_DETERMINISTIC": there})
    assert mixed([one, one]) == []
    variable, library = mixed([one, other])
    assert variable.startswith("variable HCCL_DETERMINISTIC: aaaaaaaaaaaaaaaa on a, bbbb")
    assert library == "version of pillow: 12.0 on a, none on b"


def test_a_verdict_depends_on_what_each_host_finds() -> None:
    hosts = (
        host("a", conditions={"version of pillow": "12.0"}, engine_files={"files of vllm": "x"}),
        host("b", conditions={"version of pillow": "13.0"}, engine_files={"files of vllm": "y"}),
    )
    assert Fleet(hosts).conditions == {
        "version of pillow": "12.0 (a), 13.0 (b)",
        "files of vllm on a": "x",
        "files of vllm on b": "y",
    }


def test_a_receipt_of_mixed_hosts_tells_the_version_of_each() -> None:
    first = {**SET_UP, "suite_sha256": "s"}
    other = {
        **SET_UP,
        "suite_sha256": "t",
        "versions": {"vllm": "0.23.0"},
        "environment": {"python": "3.12.1", "os": "Ubuntu", "device_memory_mib": 65536},
    }
    told = Fleet((host("a", set_up=first), host("b", set_up=other))).set_up
    assert told["suite_sha256"] == "s (a), t (b)"
    assert told["device"] == "a: 8 x 910B4, b: 8 x 910B4"
    assert told["versions"] == {
        "vllm": "0.18.0 (a), 0.23.0 (b)",
        "CANN": "8.5.1 (a), none (b)",
    }
    assert told["environment"] == {
        "python": "3.11.9 (a), 3.12.1 (b)",
        "os": "Ubuntu",
        "device_memory_mib": None,
    }


def test_a_host_without_cards_makes_no_cluster_unready() -> None:
    head = host("head", 0, {**SET_UP, "device": "no NPU"}, unavailable="there is no Ascend NPU")
    assert is_ready([head, host("a"), host("b")])
    assert "The hosts are alike." in list(lines([head, host("a")], "NPU"))
    assert not is_ready([head])


def test_one_simulated_host_makes_a_simulated_run() -> None:
    fleet = Fleet((host("a"), host("b", set_up={**SET_UP, "simulated": True})))
    assert fleet.simulated
    assert fleet.set_up["simulated"] is True


def test_changed_files_of_a_host_are_those_of_the_run() -> None:
    changed = host("b", unmodified={"vllm": ["vllm/a.py"], "vllm-ascend": True})
    unknown = host("c", unmodified={"vllm": True, "vllm-ascend": None})
    assert Fleet((host("a", unmodified={"vllm": True}), changed, unknown)).unmodified == {
        "vllm": ["vllm/a.py"],
        "vllm-ascend": None,
    }


def test_the_closing_line_names_the_hosts() -> None:
    assert Fleet((host("a"),)).label == "the NPU, host a"
    assert Fleet((host("a"), host("b"), host("c"))).label == "the NPU, hosts a, b and c"
    assert listed(["a", "b"]) == "a and b"


def test_a_class_that_fits_nowhere_is_told_before_it_starts() -> None:
    reason = reasons.unplaceable(Job("m.py::TestLarge", 4), [host("a", 2), host("b", 1)])
    assert reason is not None
    assert reason.startswith("TestLarge needs 4 cards on one host")
    assert "a: 2, b: 1" in reason


def test_missing_weights_and_packages_are_told_by_host() -> None:
    job = Job("m.py::TestSmall", 1, model_id="org/small")
    bare = host("a", unavailable="vLLM-Ascend is not installed")
    empty = host("b", weights={"org/small": "the weights of org/small are not in /models."})
    reason = reasons.unplaceable(job, [bare, empty])
    assert reason == (
        "no host of the cluster can run TestSmall:\n"
        "a: vLLM-Ascend is not installed\n"
        "b: the weights of org/small are not in /models."
    )
    assert reasons.unplaceable(job, [bare, empty, host("c")]) is None


def test_packages_decide_where_a_model_runs() -> None:
    job = Job("m.py::TestNew", 1, model_id="org/new")
    told = "it needs transformers>=5, and transformers 4.57.6 is installed"
    models: dict[str, str | None] = {"org/new": None, "org/old": None}
    old = host("a", weights={**models, "org/new": "its weights are missing"})
    old = dataclasses.replace(old, packages={"org/new": told, "org/old": None})
    new = host("b", weights=models)
    assert not reasons.may_run(job, old)
    assert reasons.may_run(job, new)
    assert Fleet((old,)).lacks_packages_reason("org/new") == told
    assert Fleet((old, new)).lacks_packages_reason("org/new") is None
    assert f"  org/new is not applicable: {told}" in lines([old], "NPU")
    assert is_ready([old])
    assert not is_ready([dataclasses.replace(old, packages=dict.fromkeys(models, told))])


def test_a_job_without_server_runs_where_no_server_can() -> None:
    bare = host("a", cards=0, unavailable="there is no Ascend NPU")
    assert reasons.unavailable([bare]) == "a: there is no Ascend NPU"
    assert reasons.unavailable([bare, host("b")]) is None
    assert reasons.unplaceable(Job("m.py::TestSmall", 0), [bare]) is None


class FakeCluster:
    """A cluster whose tasks tell what a script says: lists of messages, then how they end."""

    def __init__(self, script: Callable[[Work], Iterator[Arrival]]) -> None:
        self.dead: set[str] = set()
        self.started: list[tuple[str, str, int]] = []
        self.ended: list[Any] = []
        self._script = script
        self._tasks: dict[int, Iterator[Arrival]] = {}
        self._number = itertools.count()

    def nodes(self) -> list[Node]:
        return [Node(f"id-{name}", name, 4) for name in ("a", "b", "c") if name not in self.dead]

    def start(self, work: Any, node: Node, cards: int) -> int:
        number = next(self._number)
        self.started.append((work.suite_class, node.name, cards))
        self._tasks[number] = self._script(work)
        return number

    def wait(self, tasks: Sequence[int], _: float) -> list[Arrival]:
        arrival = next(self._tasks[tasks[0]])
        return [Arrival(tasks[0], arrival.messages, arrival.error, arrival.died)]

    def end(self, tasks: Sequence[int]) -> None:
        self.ended += tasks


class FakeReplay:
    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.forgotten: list[str] = []
        self.failed: dict[str, tuple[str, type]] = {}
        self.workers: dict[str, str] = {}

    def take(self, data: Mapping[str, Any], _: str, worker: str) -> None:
        self.ended.add(data["test"])
        self.workers[data["test"]] = worker

    def forget(self, tests: Sequence[str]) -> None:
        self.forgotten += tests

    def fail(self, tests: Sequence[str], reason: str, error: type) -> None:
        self.ended |= set(tests)
        self.failed |= dict.fromkeys(tests, (reason, error))


class Loop:
    """A run loop on a fake cluster of the hosts a, b and c, with four cards each."""

    def __init__(self, script: Callable[[Any], Iterator[Arrival]]) -> None:
        self.cluster = FakeCluster(script)
        self.replay = FakeReplay()
        self.notes: list[str] = []
        self.events: list[Any] = []
        self.seconds: dict[str, float] = {}

    def run(self, *jobs: Job, must_stop: Callable[[], None] = lambda: None) -> None:
        def work_of(job: Job, name: str) -> Any:
            return Work(job.name, frozenset(job.tests), {}, Any, None, name, "run", Any, None)  # type: ignore[arg-type]

        places = [Place(host(node.name, 4), node) for node in self.cluster.nodes()]
        observer = Observer(
            self.events.append, self.notes.append, self.seconds.__setitem__, must_stop
        )
        spread = Spread(self.cluster, places, self.replay, observer)  # type: ignore[arg-type]
        spread.run(jobs, work_of)


def reports(*tests: str) -> Arrival:
    return Arrival(None, [{"report": {"test": test}} for test in tests])


ENDED = Arrival(None)
DIED = Arrival(None, error="the node died", died=True)
JOB = Job("m.py::TestX", 2, ("t1", "t2", "t3"))


def test_each_class_runs_once_where_it_fits() -> None:
    def script(work: Work) -> Iterator[Arrival]:
        yield reports(*work.tests)
        yield Arrival(None, [{"event": {"event": "phase", "worker": "main"}}])
        yield Arrival(None, [{"ended": "exit code 0"}])
        yield ENDED

    loop = Loop(script)
    loop.run(Job("m.py::TestSmall", 1, ("s",)), JOB, Job("m.py::TestLarge", 4, ("l",)))
    assert loop.cluster.started == [
        ("m.py::TestLarge", "a", 4),
        ("m.py::TestX", "b", 2),
        ("m.py::TestSmall", "c", 1),
    ]
    assert loop.replay.ended == {"s", "t1", "t2", "t3", "l"}
    assert not loop.replay.failed
    assert not loop.notes
    assert loop.replay.workers["l"] == "a-0"
    assert {event["worker"] for event in loop.events} == {"a-0", "b-0", "c-0"}
    assert loop.seconds.keys() == {"m.py::TestSmall", "m.py::TestX", "m.py::TestLarge"}


def test_processes_of_one_host_have_names_of_their_own() -> None:
    def script(work: Work) -> Iterator[Arrival]:
        yield reports(*work.tests)
        yield ENDED

    loop = Loop(script)
    loop.run(*(Job(f"m.py::Test{n}", 2, (str(n),)) for n in range(6)))
    assert sorted(loop.replay.workers.values()) == ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1"]


def test_after_the_death_of_a_host_the_tests_that_are_left_run_on_another() -> None:
    def script(work: Work) -> Iterator[Arrival]:
        if work.host == "a":
            yield reports("t1")
            loop.cluster.dead.add("a")
            yield DIED
        yield reports(*work.tests)
        yield ENDED

    loop = Loop(script)
    loop.run(JOB)
    assert [name for _, name, _ in loop.cluster.started] == ["a", "b"]
    assert loop.replay.ended == {"t1", "t2", "t3"}
    assert loop.replay.forgotten[:2] == ["t2", "t3"]
    assert loop.notes == ["TestX ran again on b, a died"]
    assert not loop.seconds, "a part of a class tells nothing about its duration"


def test_a_second_death_is_an_error_of_the_tests_that_are_left() -> None:
    def script(work: Work) -> Iterator[Arrival]:
        loop.cluster.dead.add(work.host)
        yield DIED

    loop = Loop(script)
    loop.run(JOB)
    assert len(loop.cluster.started) == 2
    reason, error = loop.replay.failed["t3"]
    assert error is HostError
    assert reason.startswith("TestX did not end: a and b died while it ran there.")


def test_if_no_other_host_fits_the_tests_are_errors() -> None:
    def script(_: Work) -> Iterator[Arrival]:
        loop.cluster.dead |= {"a", "b", "c"}
        yield DIED

    loop = Loop(script)
    loop.run(JOB)
    reason, error = loop.replay.failed["t1"]
    assert error is HostError
    assert "a died while it ran there, and no other host can run it." in reason


def test_a_test_process_that_ends_early_is_told_and_not_repeated() -> None:
    def script(_: Work) -> Iterator[Arrival]:
        yield reports("t1")
        yield Arrival(None, [{"ended": "exit code 139"}])
        yield ENDED

    loop = Loop(script)
    loop.run(JOB)
    assert len(loop.cluster.started) == 1
    assert loop.replay.failed == {
        "t2": ("exit code 139", HostError),
        "t3": ("exit code 139", HostError),
    }


def test_an_interruption_ends_what_runs() -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    def script(_: Work) -> Iterator[Arrival]:
        yield reports("t1")

    loop = Loop(script)
    with pytest.raises(Stopped):
        loop.run(JOB, must_stop=stop)
    assert loop.cluster.ended == [0]


# --- what travels --------------------------------------------------------------------------------


def test_work_is_the_same_in_its_process() -> None:
    options = {"keyword": "中文", "verbose": 1, "root": Path("/models"), "plugins": ["a", "b"]}
    tests = frozenset({"m.py::TestX::t1[中]", "m.py::TestX::t2"})
    work = Work("m.py::TestX", tests, options, Path(), None, "a", "run", Path("/logs"), None)
    again = Work.from_text(work.as_text())
    assert again == work
    assert isinstance(again.options["root"], Path)


def test_the_log_of_tests_without_a_class_is_named_by_their_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "conformance" / "test_own.py"
    module.parent.mkdir()
    module.write_text("def test_one(): pass", "utf-8")
    monkeypatch.chdir(tmp_path)
    tests = frozenset({"conformance/test_own.py::test_one"})
    work = Work(
        "conformance/test_own.py", tests, {}, Path(), None, "a", "run", tmp_path / "logs", None
    )
    messages = [message for several in judge(work) for message in several]
    assert [one["report"]["outcome"] for one in messages if "report" in one] == ["passed"] * 3
    log = tmp_path / "logs" / "run" / "conformance-test_own.py-pytest.log"
    assert "1 passed" in log.read_text("utf-8")


def test_a_host_has_no_stepwise_run_of_its_own(pytester: pytest.Pytester) -> None:
    typed = vars(pytester.parseconfig("--stepwise-skip").option)
    own = {name: value for name, value in _OF_DRIVER.items() if name in typed}
    config = pytest.Config.fromdictargs({**typed, **own}, [])
    config.pluginmanager.get_plugin("stepwise").pytest_configure(config)
    assert not config.pluginmanager.has_plugin("stepwiseplugin")


def test_a_host_needs_no_access_to_the_directory_of_the_report(pytester: pytest.Pytester) -> None:
    typed = vars(pytester.parseconfig("--vlm-report=reports", "--vlm-resume=reports").option)
    own = {**typed, **_OF_DRIVER}
    assert (own["vlm_report"], own["vlm_resume"]) == (None, None)


@pytest.mark.parametrize("value", [object(), [object()], {"a": 1}, lambda: None])
def test_what_another_process_cannot_have_does_not_travel(value: object) -> None:
    assert not is_plain(value)
