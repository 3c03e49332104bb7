"""The library of faults, and the benchmark that puts them into real vLLM."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fault_detection
import pytest
from fault_detection import Bench, planned
from faults.engine import hooks
from faults.fault import ANY, INTERNVL, MINERU, QWEN2_5, QWEN3, Fault, Kind, Place
from faults.kept import Kept
from faults.library import FAULTS
from faults.marks import Marks
from faults.outcome import Conclusion, Control, Result, holds, rates
from faults.seen import READ, Row, Seen, restored
from faults.tables import criterion_table, diagnosis_line, fault_table, rate_table, tables
from helpers.models import criteria
from helpers.paths import REPOSITORY
from helpers.published import published_runs
from helpers.watch import GONE_WITHIN_SECONDS, Watch
from tiny_model import MODELS, SuiteDidNotRunError

from pytest_ascend_vlm.criteria.diagnosis import Part, pattern, rules
from pytest_ascend_vlm.engines import torch_companions
from pytest_ascend_vlm.errors import ServerError

BENCHMARKS = REPOSITORY / "benchmarks"
BENCHMARK = (sys.executable, "-m", "fault_detection")
BY_NAME = {fault.name: fault for fault in FAULTS}
# Three or more faults of each of these kinds. Those about load come later.
COVERED = {
    *(Kind.COLD, Kind.SIZE, Kind.WHICH, Kind.GROWTH),
    *(Kind.BORDERS, Kind.AFTERMATH, Kind.FORMATS, Kind.CLIPS),
}

# --- declarations --------------------------------------------------------------------------------


def test_the_library_covers_the_kinds() -> None:
    assert len(FAULTS) >= 40
    assert len(BY_NAME) == len(FAULTS)
    for kind in COVERED:
        assert sum(fault.kind is kind for fault in FAULTS) >= 3, kind
    assert {fault.place for fault in FAULTS} == set(Place)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_declared_well(fault: Fault) -> None:
    assert re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", fault.name)
    assert fault.caught_by
    assert fault.models
    assert set(fault.models) <= set(ANY) == set(MODELS)
    assert not fault.what.endswith(".")


def test_faults_are_caught_by_criteria_of_the_suite() -> None:
    named = {name for fault in FAULTS for name in fault.caught_by}
    unknown = sorted(named - criteria().keys())
    assert not unknown, f"the catalogue has no such criteria: {unknown}"


def test_only_faults_of_the_engine_are_judged_on_servers_of_the_suite() -> None:
    # The suite does not judge a checkpoint whose digest its goldens do not have.
    own = {fault.place for fault in FAULTS if fault_detection.needs_own_servers(fault)}
    assert own == {Place.ENGINE}


# --- conclusions and tables ----------------------------------------------------------------------

NOISE, USAGE, CLIP = (BY_NAME[name] for name in ("tower-noise-5", "usage-too-low", "clip-reversed"))
NAMED = dict.fromkeys(NOISE.caught_by, 3)
ONE = NOISE.caught_by[0]


def row(criterion: str, case: str | None = None, status: str = "fail", **evidence: Any) -> Row:
    return {"criterion": criterion, "case": case, "status": status, "evidence": evidence}


def red(counts: Mapping[str, int], problem: str = "") -> Seen:
    """A run in which so many cases of these criteria fail."""
    rows = [row(name, f"case-{n}") for name, count in counts.items() for n in range(count)]
    return Seen(tuple(rows), problem, "2026-01-02")


@pytest.mark.parametrize(
    ("counts", "marks", "conclusion"),
    [
        ({**NAMED, "serving.text": 1}, {}, Conclusion.CAUGHT),
        (NAMED, {"has_acted": False}, Conclusion.CAUGHT),
        ({ONE: 1}, {}, Conclusion.PARTLY),
        ({"serving.text": 1}, {}, Conclusion.PARTLY),
        ({}, {}, Conclusion.MISSED),
        ({}, {"has_acted": False}, Conclusion.NOT_PROVOKED),
        (NAMED, {"was_reached": False}, Conclusion.NOT_ACTIVE),
    ],
)
def test_a_result_has_a_conclusion(
    counts: Mapping[str, int], marks: dict[str, bool], conclusion: Conclusion
) -> None:
    assert Result(NOISE, MINERU, red(counts), **marks).conclusion is conclusion


def test_a_model_that_could_not_be_judged_has_no_verdict() -> None:
    assert Result(NOISE, MINERU, red(NAMED, "it died")).conclusion is Conclusion.NO_VERDICT


def test_failures_and_errors_are_red() -> None:
    statuses = ["fail", "error", "pass", "xfail", "na", "skip"]
    rows = [row(f"a.{status}", status=status) for status in statuses]
    assert Seen([*rows, rows[0]]).red == {"a.fail": 2, "a.error": 1}


RESULTS = [
    Result(NOISE, MINERU, red(NAMED)),
    Result(NOISE, MINERU, red({})),
    Result(USAGE, MINERU, red({"serving.text": 2, "document.order": 1})),
    Result(CLIP, QWEN2_5, red({}), was_reached=False),
    Result(CLIP, QWEN2_5, red({}, "it died | early\nmore")),
]
CONTROLS = [
    Control(MINERU, "eager", red({})),
    Control(MINERU, "eager", red({"serving.text": 2})),
    Control(MINERU, "compiled", red({}, "no compiler\nmore")),
    Control(QWEN2_5, "eager", red({})),
]


def test_rates_leave_out_what_was_not_judged() -> None:
    found = [(rate.kind, rate.judged, rate.detected, rate.as_named) for rate in rates(RESULTS)]
    assert found == [(Kind.COLD, 2, 1, 1), (Kind.NUMBERS, 1, 1, 0), (None, 3, 2, 1)]
    assert rates(RESULTS)[0].share == 0.5
    assert rates(RESULTS[3:]) == []


def test_a_right_suspect_counts_for_a_detected_fault() -> None:
    assert diagnosis_line(RESULTS).endswith(
        "of 2 detected faults the right part was suspected first for 1, and among the first two "
        "for 1. Of the 2 without a star it was first for 1, and among the first two for 1."
    )


def test_the_promise_needs_every_fault_and_every_control() -> None:
    assert holds(RESULTS[:1], [CONTROLS[0]])
    assert not holds(RESULTS[:2], [])
    assert not holds(RESULTS[2:3], [])
    assert not holds(RESULTS[3:4], [])
    assert not holds([], CONTROLS[1:2])
    assert not holds([], CONTROLS[2:3])


def test_the_table_of_rates() -> None:
    assert rate_table(RESULTS).splitlines()[2:] == [
        "| cold | 1 of 2 | 50% | 1 of 2 |",
        "| numbers | 1 of 1 | 100% | 0 of 1 |",
        "| **all** | 2 of 3 | 67% | 1 of 3 |",
    ]


def test_the_table_of_faults() -> None:
    lines = fault_table(RESULTS).splitlines()
    assert {line.count(" | ") for line in lines} == {8}
    _, _, caught, missed, inactive, dead, partly = lines  # kind by kind, then by name
    assert caught.startswith("| `tower-noise-5` | cold | engine | qwen2_vl | each call of ")
    named = f"**`{ONE}`** 3, **`{NOISE.caught_by[1]}`** 3"
    assert caught.endswith(f"| caught | {named} | **vision tower**, preprocessing | 2026-01-02 |")
    assert f"| missed | ✗ `{ONE}`, ✗ " in missed
    assert "partly caught | **`serving.text`** 2, `document.order` 1, ✗ `serving.image`" in partly
    assert "ERROR: the fault was not active" in inactive
    assert dead.endswith(r"could not be judged | it died \| early | – | 2026-01-02 |")


def test_the_table_of_criteria() -> None:
    alone = Result(USAGE, MINERU, red({"serving.text": 9}))
    assert criterion_table([*RESULTS, alone]).splitlines()[2:4] == [
        "| `serving.text` | 2 | `usage-too-low` |",
        f"| `{ONE}` | 1 | – |",
    ]


def test_all_tables() -> None:
    text = tables(RESULTS, CONTROLS)
    assert "| qwen2_vl | eager | 2 | `serving.text` in 1 |" in text
    assert "| qwen2_vl | compiled | 1 | no compiler |" in text
    assert "| qwen2_5_vl | eager | 1 | none |" in text
    assert text.count("\n| --- |") == 4
    assert "false alarms" not in tables(RESULTS, [])
    assert "Each fault" not in tables([], CONTROLS)


# --- the plan, without vLLM ----------------------------------------------------------------------


def test_each_fault_goes_into_its_preferred_model() -> None:
    plan = planned(FAULTS, None)
    assert sorted(fault.name for faults in plan.values() for fault in faults) == sorted(BY_NAME)
    assert all(fault.models[0] == name for name, faults in plan.items() for fault in faults)


def test_one_model_gets_the_faults_that_it_can_have() -> None:
    plan = planned(FAULTS, INTERNVL)
    assert plan.keys() == {INTERNVL}
    names = {fault.name for fault in plan[INTERNVL]}
    assert {"fewer-tiles", "clip-reversed"} < names
    assert "mrope-section" not in names


class Engine:
    """Stands for vLLM and the suite; tells what was served, and what it was asked by.

    Attributes:
        told: a line for each server and each run of the suite.
        rows: the report of every run of the suite.
        dies: True if a server dies while the suite runs.
        acts: False if no fault is ever reached.
        runs: called when a server or the suite starts.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self.dies = False
        self.runs: Callable[[], None] = lambda: None
        self.acts = True
        for name in ("server", "running", "judge", "run_suite", "proxy"):
            monkeypatch.setattr(fault_detection, name, getattr(self, name))

    def server(self, model: Any, work: Path, roots: tuple[Path, ...] = ()) -> Any:
        assert work.is_dir()
        changed = "harmed" if len(roots) > 1 else "sound"
        return SimpleNamespace(model=model.test, checkpoint=changed, require_alive=self.alive)

    @contextmanager
    def running(
        self, server: Any, serve: Mapping[str, Any] = {}, env: Mapping[str, str] = {}
    ) -> Iterator[str]:
        how = [server.model, server.checkpoint, *map(str, serve.values())]
        self.told.append(" ".join(["server", *how, env.get(hooks.FAULTS_VARIABLE, "")]).strip())
        self.runs()
        self._mark(env)
        yield "endpoint"

    @contextmanager
    def proxy(self, endpoint: str, _changes: Any, on_change: Callable[[], None]) -> Iterator[str]:
        if self.acts:
            on_change()
        yield f"proxy of {endpoint}"

    def judge(self, model: Any, endpoint: str, work: Path, *arguments: str) -> list[dict[str, Any]]:
        assert work.is_dir()
        self.told.append(" ".join([f"suite {model.test} {endpoint}", *arguments]))
        return self.rows

    def run_suite(
        self, model: Any, _work: Path, arguments: tuple[str, ...], env: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        name = env.get(hooks.FAULTS_VARIABLE, "-")
        self.told.append(f"suite {model.test} {' '.join(arguments)} {name}")
        self._mark(env)
        self.runs()
        return self.rows

    def alive(self) -> None:
        if self.dies:
            raise ServerError("the server died")

    def _mark(self, env: Mapping[str, str]) -> None:
        if self.acts and env:
            marks = Marks(Path(env[hooks.MARKS_VARIABLE]))
            marks.reached(env[hooks.FAULTS_VARIABLE])
            marks.acted(env[hooks.FAULTS_VARIABLE])


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


def runs(tmp_path: Path, *names: str, model: str = MINERU, clean: int = 0) -> list[Any]:
    faults = tuple(BY_NAME[name] for name in names)
    return [*Bench(model, faults, faults, clean, tmp_path).runs()]


def test_wire_faults_and_controls_share_a_server(fake_engine: Engine, tmp_path: Path) -> None:
    seen = runs(tmp_path, "seed-dropped", "usage-too-low", clean=4)
    proxied = "eager, behind a proxy"
    told = [one.mode if isinstance(one, Control) else one.fault.name for one in seen]
    assert told == ["eager", "eager", proxied, "seed-dropped", "usage-too-low", "compiled"]
    assert fake_engine.told == [
        "server TestMinerU25 sound True",
        "suite TestMinerU25 endpoint",
        "suite TestMinerU25 endpoint",
        "suite TestMinerU25 proxy of endpoint",
        "suite TestMinerU25 proxy of endpoint",
        "suite TestMinerU25 proxy of endpoint",
        "server TestMinerU25 sound False",
        "suite TestMinerU25 endpoint",
    ]


def test_every_other_fault_has_a_server_of_its_own(fake_engine: Engine, tmp_path: Path) -> None:
    runs(tmp_path, "tower-noise-5", "clip-time-doubled", "weights-int4", model=QWEN3)
    assert fake_engine.told == [
        "server TestQwen3VL8B sound tower-noise-5",
        "suite TestQwen3VL8B endpoint",
        "server TestQwen3VL8B sound clip-time-doubled",
        "suite TestQwen3VL8B endpoint",
        "server TestQwen3VL8B harmed",
        "suite TestQwen3VL8B endpoint",
    ]


def test_the_suite_starts_servers_that_need_other_arguments(
    fake_engine: Engine, tmp_path: Path
) -> None:
    controls = runs(tmp_path, "chunk-shifts-picture", clean=3)[:3]
    assert [one.mode for one in controls] == ["eager", "compiled", "by the suite"]
    assert fake_engine.told[-2:] == [
        "suite TestMinerU25 --vlm-platform=cpu -",
        "suite TestMinerU25 --vlm-platform=cpu chunk-shifts-picture",
    ]


def test_faults_of_growth_are_judged_over_many_pictures(
    fake_engine: Engine, tmp_path: Path
) -> None:
    names = ("tensors-kept", "tower-wears-out", "answer-of-an-old-request")
    seen = [one.mode for one in runs(tmp_path, *names, clean=1) if isinstance(one, Control)]
    assert seen == ["by the suite, with many pictures"]
    assert fake_engine.told == [
        "server TestMinerU25 sound True",
        "suite TestMinerU25 proxy of endpoint -m soak",
        "suite TestMinerU25 --vlm-platform=cpu -m soak -",
        "suite TestMinerU25 --vlm-platform=cpu -m soak tensors-kept",
        "server TestMinerU25 sound tower-wears-out",
        "suite TestMinerU25 endpoint -m soak",
    ]


def test_faults_of_a_crowd_are_judged_with_many_requests_at_once(
    fake_engine: Engine, tmp_path: Path
) -> None:
    found = runs(tmp_path, "answers-mixed-above-16", clean=1)
    seen = [one.mode for one in found if isinstance(one, Control)]
    assert seen == ["eager, with many requests at once"]
    assert fake_engine.told == [
        "server TestMinerU25 sound True",
        "suite TestMinerU25 endpoint -m ladder",
        "suite TestMinerU25 proxy of endpoint -m ladder",
    ]


def test_red_criteria_are_counted(fake_engine: Engine, tmp_path: Path) -> None:
    fake_engine.rows = [row(name) for name in (*NOISE.caught_by, ONE)]
    (result,) = runs(tmp_path, "tower-noise-5")
    assert result.seen.red == {**dict.fromkeys(NOISE.caught_by, 1), ONE: 2}
    assert result.to_json()["red"][ONE] == 2


def test_a_fault_that_never_ran_is_an_error(fake_engine: Engine, tmp_path: Path) -> None:
    fake_engine.acts = False
    wire, engine = runs(tmp_path, "tower-noise-5", "seed-dropped")
    assert engine.conclusion is Conclusion.NOT_ACTIVE
    assert wire.conclusion is Conclusion.NOT_PROVOKED


@pytest.mark.usefixtures("fake_engine")
def test_what_the_start_did_is_not_provoked(tmp_path: Path) -> None:
    (result,) = runs(tmp_path, "tower-noise-5")
    assert (result.was_reached, result.has_acted) == (True, False)


def test_a_server_that_dies_or_does_not_start_is_no_detection(
    fake_engine: Engine, tmp_path: Path
) -> None:
    fake_engine.rows = [row(ONE, status="error")]
    fake_engine.dies = True
    for one in runs(tmp_path, "tower-noise-5", "weights-int4", "seed-dropped", clean=1):
        assert (one.seen.rows, one.seen.problem) == ((), "the server died")

    def fails() -> None:
        raise ServerError("no memory")

    fake_engine.runs = fails
    (control,) = runs(tmp_path, "seed-dropped")
    assert control.seen.problem == "the server does not start: no memory"
    assert not control.is_clean
    (result,) = runs(tmp_path, "tower-noise-5")
    assert result.conclusion is Conclusion.NO_VERDICT
    assert result.seen.problem == "the server does not start: no memory"


def test_a_suite_without_a_report_is_no_detection(fake_engine: Engine, tmp_path: Path) -> None:
    def fails() -> None:
        raise SuiteDidNotRunError("usage: pytest")

    fake_engine.runs = fails
    (result,) = runs(tmp_path, "chunk-shifts-picture")
    assert result.seen.problem == "usage: pytest"


def test_the_command_line(
    fake_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    output = tmp_path / "run.md"
    command = ["fault_detection", "--kinds", "numbers", "load", "--clean-runs=1"]
    more = ["--faults", "usage-too-low", "logprobs-flat", "tower-noise-5", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", [*command, *more])
    fake_engine.rows = [row("serving.text")]
    assert fault_detection.main() == 1
    lines = capsys.readouterr().out.splitlines()
    alarm = "[1/3] qwen2_vl: sound, served eager: FALSE ALARM; red: serving.text 1"
    partly = "[2/3] qwen2_vl: usage-too-low: partly caught; red: serving.text 1"
    assert lines[:2] == [alarm, partly]
    found = json.loads(lines[-1])
    assert found["benchmark"] == "fault_detection"
    assert [one["fault"] for one in found["results"]] == ["usage-too-low", "logprobs-flat"]
    assert found["controls"][0]["mode"] == "eager"
    assert found["holds"] is False
    text = output.read_text("utf-8")
    assert "\nJudged on a CPU: 3 runs with pytest-ascend-vlm " in text
    assert text.endswith(tables([], [Control(MINERU, "eager", red({"serving.text": 1}))]))


def test_kept_runs_are_not_repeated(
    fake_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["fault_detection", f"--keep={tmp_path / 'runs.jsonl'}"]
    more = ["--faults", "tower-noise-5", "chunk-shifts-picture"]
    monkeypatch.setattr(sys, "argv", [*command, *more, "--clean-runs=2"])
    fake_engine.rows = [row(name) for name in NOISE.caught_by]
    fault_detection.main()
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(fake_engine.told) == 7
    fault_detection.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first
    assert len(fake_engine.told) == 7
    monkeypatch.setattr(sys, "argv", [*command, *more, "--clean-runs=3"])
    fault_detection.main()
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["results"] == first["results"]
    assert [one["mode"] for one in again["controls"]] == ["eager", "compiled", "by the suite"]
    assert len(fake_engine.told) == 8


def test_a_run_without_a_verdict_is_repeated(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "runs.jsonl")
    for run in (*RESULTS, *CONTROLS):
        kept.add(run)
    again = Kept.read(kept.path, FAULTS)
    # Of two runs with one fault, the later one counts.
    assert [one.to_json() for one in again.results] == [one.to_json() for one in RESULTS[1:4]]
    assert again.controls == [one for one in CONTROLS if not one.seen.problem]
    assert [one.fault for one in Kept.read(kept.path, [USAGE]).results] == [USAGE]
    assert again.has(NOISE, MINERU)
    assert not again.has(NOISE, QWEN2_5)
    assert Kept.read(tmp_path / "none", FAULTS).results == []


def test_a_run_of_another_version_is_repeated_and_shown(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "runs.jsonl")
    old = Seen(red(NAMED).rows, versions={"vllm": "0.1"})
    kept.add(Result(NOISE, MINERU, old))
    kept.add(Control(MINERU, "eager", Seen(versions=old.versions)))
    again = Kept.read(kept.path, FAULTS)
    assert not again.has(NOISE, MINERU)
    assert not again.modes(MINERU)
    assert "Judged on a CPU: 2 runs with vllm 0.1." in fault_detection.page(again)


SOUND = (
    row("serving.text", "text/a", "pass"),
    row("baseline.image", "document/a", "pass", got="甲", expected="甲", ratio=0.9),
    row("lifecycle.stop", None, "pass"),
    row("serving.video", "video/a", "na"),
)


def test_a_run_is_restored_with_what_the_diagnosis_reads() -> None:
    wrong = row("baseline.image", "document/a", got="乙", expected="甲", ratio=2.5)
    condensed = Seen((SOUND[0], wrong)).condensed(SOUND)
    assert condensed["fail"] == {"baseline.image": {"document/a": {"got": "乙", "expected": "甲"}}}
    assert "pass" not in condensed
    assert condensed["unjudged"] == {"lifecycle.stop": {"": {}}}
    found = restored(condensed, SOUND)
    kept = row("baseline.image", "document/a", got="乙", expected="甲")
    assert found.rows == (SOUND[0], kept)
    alone, changed = Seen(SOUND).condensed(), Seen(SOUND).condensed(SOUND)
    assert restored(alone).rows == restored(changed, SOUND).rows != ()


def test_all_evidence_that_a_rule_reads_is_kept() -> None:
    text = Path(inspect.getfile(rules)).read_text("utf-8")
    text += Path(inspect.getfile(pattern)).read_text("utf-8")
    found = re.findall(r"""(?:evidence\(\w+\)(?:\.get\(|\[)|number\(row, |texts\[)"(\w+)""", text)
    assert len(found) > 10
    assert set(found) == set(itertools.chain(*READ.values()))


def test_a_kept_run_has_the_suspects_of_the_run(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "runs.jsonl")
    kept.add(Control(MINERU, "eager", Seen(SOUND)))
    answers = [row("baseline.text", f"text/{n}", got="a b", expected="a") for n in "xy"]
    kept.add(Result(NOISE, MINERU, Seen((*SOUND, *answers))))
    (again,) = Kept.read(kept.path, FAULTS).results
    assert again.seen.suspects == kept.results[0].seen.suspects
    assert again.seen.suspects[0] == Part.END.value  # a rule that reads the texts


def test_two_processes_add_to_one_file(tmp_path: Path) -> None:
    one, other = Kept(tmp_path / "runs.jsonl"), Kept(tmp_path / "runs.jsonl")
    one.add(Control(MINERU, "eager", Seen(SOUND)))
    other.add(Control(MINERU, "eager", Seen(SOUND[:1])))
    one.add(Result(NOISE, MINERU, Seen(SOUND[1:3])))
    other.add(Result(CLIP, MINERU, Seen(SOUND[:1])))
    noise, clip = Kept.read(one.path, FAULTS).results
    assert {row["criterion"] for row in noise.seen.rows} == {"baseline.image", "lifecycle.stop"}
    assert {row["criterion"] for row in clip.seen.rows} == {"serving.text"}


def test_what_a_killed_process_left_of_a_line_is_no_run(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "runs.jsonl")
    kept.add(RESULTS[1])
    file = tmp_path / "runs.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert Kept.read(file, FAULTS).results == []
    kept.add(RESULTS[2])
    assert [one.fault for one in Kept.read(file, FAULTS).results] == [USAGE]


def test_a_run_whose_base_is_gone_is_made_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "runs.jsonl")
    kept.add(Control(MINERU, "eager", Seen(SOUND)))
    kept.add(RESULTS[0])
    file = tmp_path / "runs.jsonl"
    file.write_text(file.read_text("utf-8").splitlines()[1], "utf-8")
    assert Kept.read(file, FAULTS).results == []


def test_the_published_page_is_what_its_runs_give() -> None:
    text = fault_detection.page(published_runs())
    assert text == (REPOSITORY / "docs" / "detected-faults.md").read_text("utf-8")


# --- a killed run --------------------------------------------------------------------------------


# A fault -> how the stand-in behaves, the line of its log at which the run is killed. The benchmark
# starts the first server itself. The suite starts the second one, and waits for its answer.
KILLED: dict[str, tuple[dict[str, Any], str]] = {
    "tower-noise-5": ({"healthy": False}, "\nup\n"),
    "chunk-shifts-picture": ({"hang_from": 2}, "request 2"),
}


@pytest.mark.parametrize("fault", KILLED)
def test_a_killed_run_leaves_no_process(
    fault: str, stand_in_root: Path, watch: Watch, tmp_path: Path
) -> None:
    plan, line = KILLED[fault]
    path = os.pathsep.join([str(stand_in_root), str(BENCHMARKS)])
    stand_in = json.dumps({**plan, "runaways": 1})
    env = {**watch.environment, "STAND_IN": stand_in, "TMPDIR": str(tmp_path), "PYTHONPATH": path}
    output = tmp_path / "output"
    with output.open("wb") as file:
        run = subprocess.Popen(
            [*BENCHMARK, "--clean-runs=0", "--faults", fault],
            cwd=REPOSITORY,
            env={**os.environ, **env},
            stdout=file,
            stderr=file,
        )
    deadline = time.monotonic() + 120
    while line not in "".join(log.read_text("utf-8") for log in tmp_path.rglob("*-Test*.log")):
        assert run.poll() is None, output.read_text("utf-8")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(watch.processes()) >= 4  # the benchmark, supervisor, server, runaway
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not watch.left_after(GONE_WITHIN_SECONDS)


# --- real vLLM -----------------------------------------------------------------------------------

HAS_VLLM = importlib.util.find_spec("vllm") is not None
ABSENT = """
import functools, importlib
from faults.engine import FAULTS
for hook in (hook for fault in FAULTS for hook in fault.hooks):
    module = importlib.import_module(hook.module)
    try:
        functools.reduce(getattr, hook.function.split("."), module)
    except AttributeError:
        print(hook.module, hook.function)
"""


@pytest.mark.vllm
@pytest.mark.skipif(not HAS_VLLM, reason="vLLM is not installed")
def test_vllm_has_every_function_that_a_fault_changes() -> None:
    path = torch_companions.child_pythonpath(str(BENCHMARKS))
    done = subprocess.run(
        [sys.executable, "-c", ABSENT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "vllm." not in done.stdout
