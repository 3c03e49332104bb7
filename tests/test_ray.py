"""`pytest --vlm-ray` on a real Ray cluster of three nodes with four simulated cards each."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fakes import simulated_npu
from helpers.host import HAS_NPU
from helpers.outcome import Judged
from helpers.ray_cluster import CARDS, RayCluster, cluster
from helpers.three_models import judge
from helpers.watch import Watch

from pytest_ascend_vlm.platforms.leases import leased_by

pytest.importorskip("ray", reason="Ray is not installed: pip install 'pytest-ascend-vlm[ray]'")

pytestmark = pytest.mark.skipif(HAS_NPU, reason="this host has real cards")

TEXTS = ("-m", "npu", "-k", "text_is_answered")
SHOW = "import sys; from pytest_ascend_vlm.cli import main; sys.exit(main())"
HOSTS = ("h1", "h2", "h3")
GONE_WITHIN_SECONDS = 15.0


def simulated_host(directory: Path, **plan: object) -> dict[str, str]:
    """The environment variables of a node with simulated cards, and locks of its own."""
    own = directory / "tmp"
    own.mkdir(parents=True)
    versions = {"vllm_version": "0.18.0", "ascend_version": "0.18.0rc1"}
    simulated = simulated_npu.install(directory / "npu", **{**versions, "cards": CARDS, **plan})
    return {**simulated, "TMPDIR": str(own)}


@pytest.fixture
def three_hosts(tmp_path: Path, three_models: Path, watch: Watch) -> Iterator[RayCluster]:  # noqa: ARG001
    hosts = {name: {**simulated_host(tmp_path / name), **watch.environment} for name in HOSTS}
    with cluster(tmp_path / "ray", hosts) as running:
        yield running


def rows(document: Any) -> list[tuple[Any, ...]]:
    names = ("suite_class", "criterion", "case", "status", "measured", "told_at", "order")
    return [
        (*(row.get(name) for name in names), row["reason"].partition("\n")[0])
        for row in document["rows"]
    ]


def gate_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("gate: ")]


def junit_cases(path: Path) -> list[tuple[str | None, ...]]:
    """Class, name, and what each test case of a JUnit file has: its failure, its output."""
    cases = ElementTree.parse(path).iter("testcase")  # noqa: S314  (our own file)
    return sorted(
        (case.get("classname"), case.get("name"), *(one.tag for one in case)) for case in cases
    )


def test_the_rows_are_those_of_a_run_without_ray(
    three_models: Path, three_hosts: RayCluster, tmp_path: Path
) -> None:
    # The fake server does not stream, so that there are errors as well.
    required = tmp_path / "required.txt"
    pairs = itertools.product(("Small", "Middle", "Large"), ("text", "streaming"))
    required.write_text("".join(f"Test{name} serving.{one}\n" for name, one in pairs), "utf-8")
    chosen = (
        *("-m", "npu", "-k", "text_is_answered or stream_adds_up"),
        *("--vlm-gate", "-o", f"vlm_required={required}"),
    )
    files = {name: tmp_path / f"{name}.xml" for name in ("alone", "ray")}
    alone, expected = judge(
        three_models,
        *(*chosen, f"--junitxml={files['alone']}"),
        **simulated_host(tmp_path / "alone"),
    )
    done, document = judge(
        three_models,
        *(*chosen, f"--vlm-ray={three_hosts.address}", f"--junitxml={files['ray']}"),
        **three_hosts.environment,
    )
    assert (alone.returncode, done.returncode) == (1, 1), done.stdout + done.stderr
    assert {"pass", "error", "na"} <= {row["status"] for row in document["rows"]}
    assert rows(document) == rows(expected)
    assert junit_cases(files["ray"]) == junit_cases(files["alone"])
    assert gate_lines(done.stdout) == gate_lines(alone.stdout)
    assert "gate: the cards are simulated, and a simulated run never passes the gate" in (
        gate_lines(done.stdout)
    )
    assert document["receipt"]["server_starts"] == 3
    assert document["receipt"]["requests"] == expected["receipt"]["requests"]
    assert {model["host"] for model in document["models"]} == {"h1", "h2", "h3"}
    cards = {model["suite_class"]: len(model["cards"]) for model in document["models"]}
    assert cards == {"TestSmall": 1, "TestMiddle": 2, "TestLarge": 4}
    assert document["receipt"]["simulated"] is True
    last = done.stdout.splitlines()[-1]
    assert "a SIMULATED NPU, hosts h1, h2 and h3" in last


def statuses(document: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in document["rows"]:
        found.setdefault(row["suite_class"], set()).add(row["status"])
    return found


def test_hosts_of_other_versions_are_refused_unless_told(
    three_models: Path, tmp_path: Path
) -> None:
    newer = {"vllm_version": "0.19.0", "ascend_version": "0.19.0rc1"}
    hosts = {
        "old": simulated_host(tmp_path / "old"),
        "new": simulated_host(tmp_path / "new", **newer),
    }
    difference = "versions: vllm: 0.19.0 on new, 0.18.0 on old"
    with cluster(tmp_path / "ray", hosts) as running:
        environment = {**os.environ, **running.environment}
        shown = subprocess.run(
            [
                *(sys.executable, "-c", SHOW),
                *("cluster", running.address, f"--models={three_models / 'test_models.py'}"),
                *("--weights=stand-in/small=/of/each/host", "--weights=stand-in/large=below"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        chosen = ("-m", "npu", "-k", "TestSmall and text_is_answered")
        spread = (*chosen, f"--vlm-ray={running.address}")
        refused, nothing = judge(three_models, *spread, **running.environment)
        done, document = judge(three_models, *spread, "--vlm-ray-mixed", **running.environment)
    assert shown.returncode == 1, shown.stderr
    named = [f"weights of stand-in/{name}: " for name in ("small", "middle", "large")]
    for line in ("old: 4 NPU, SIMULATED 4 x 910B4", *named, "/of/each/host", difference):
        assert line in shown.stdout
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR, refused.stdout
    assert difference in refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert nothing is None
    assert done.returncode == 0, done.stdout
    assert document["receipt"]["versions"]["vllm"] == "0.19.0 (new), 0.18.0 (old)"


def test_a_cluster_of_this_host_runs_what_fits_and_tells_the_rest(
    three_models: Path, tmp_path: Path
) -> None:
    host = simulated_host(tmp_path / "host", cards=2)
    done, document = judge(three_models, *TEXTS, "--vlm-ray=local", **host)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert statuses(document) == {
        "TestSmall": {"pass", "na"},
        "TestMiddle": {"pass", "na"},
        "TestLarge": {"error", "na"},
    }
    error = next(row for row in document["rows"] if row["status"] == "error")
    assert "TestLarge needs 4 cards on one host" in error["reason"]


def test_a_run_on_a_cluster_is_appended_to_another(three_models: Path, tmp_path: Path) -> None:
    host = simulated_host(tmp_path / "host", cards=2)
    small, middle = (
        ("-m", "npu", "-k", f"{one} and text_is_answered") for one in ("Small", "Middle")
    )
    judge(three_models, *small, "--vlm-ray=local", **host)
    done, document = judge(three_models, *middle, "--vlm-ray=local", "--vlm-report-append", **host)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(document).keys() == {"TestSmall", "TestMiddle"}


def test_a_model_whose_packages_no_host_has_is_not_applicable_as_on_one_host(
    three_models: Path, tmp_path: Path
) -> None:
    models = three_models / "test_models.py"
    middle = 'model = model("middle", 2)'
    lacking = f"{middle}.__class__(**{{**vars({middle[8:]}), 'requires': ('transformers>=99',)}})"
    models.write_text(models.read_text("utf-8").replace(middle, lacking), "utf-8")
    host = simulated_host(tmp_path / "host", cards=2)
    selected = ("-m", "npu", "-k", "(Small or Middle) and text_is_answered")
    _, expected = judge(three_models, *selected, **host)
    done, document = judge(three_models, *selected, "--vlm-ray=local", **host)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(document) == rows(expected)
    assert statuses(document) == {"TestSmall": {"pass", "na"}, "TestMiddle": {"na"}}
    told = "it needs transformers>=99, and transformers"
    assert any(row["reason"].startswith(told) for row in document["rows"])


def test_collection_errors_leave_the_tests_to_the_cluster(
    three_models: Path, tmp_path: Path
) -> None:
    (three_models / "test_broken.py").write_text("raise ValueError", "utf-8")
    host = simulated_host(tmp_path / "host", cards=2)
    chosen = ("-m", "npu", "-k", "Small and text_is_answered", "--continue-on-collection-errors")
    _, document = judge(three_models, *chosen, "--vlm-ray=local", **host)
    assert {model.get("host") for model in document["models"]} != {None}


def test_a_cluster_without_an_npu_skips_as_a_host_does(three_models: Path) -> None:
    done, document = judge(three_models, *TEXTS, "--vlm-ray=local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {status for found in statuses(document).values() for status in found} == {"skip", "na"}
    assert "there is no Ascend NPU" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--vlm-ray=auto", "-n", "2"), "--vlm-ray runs the classes in parallel itself; remove -n"),
        (("--vlm-ray=auto", "-m", "performance"), "disturb each other's measurements"),
        (("--vlm-ray=auto", "--vlm-record"), "--vlm-record works on one host; remove --vlm-ray"),
        (("--vlm-ray-mixed",), "--vlm-ray-mixed is about a cluster"),
        (("--vlm-ray=ray://host:10001",), "is an address of the Ray client"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(
    arguments: tuple[str, ...], problem: str, judged: Judged
) -> None:
    outcome = judged(None, *arguments)
    assert outcome.result.ret == pytest.ExitCode.USAGE_ERROR
    assert problem in outcome.text + outcome.result.stderr.str()


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("sitecustomize", "import sys; sys.modules['ray'] = None", "'pytest-ascend-vlm[ray]'"),
        ("ray", "def init(**_): raise OSError('no memory is left')", "OSError: no memory is left"),
    ],
    ids=["not installed", "does not start"],
)
def test_a_cluster_of_this_host_that_cannot_start_is_told(
    module: str, source: str, problem: str, three_models: Path, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text(source, "utf-8")
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done, document = judge(three_models, *TEXTS, "--vlm-ray=local", PYTHONPATH=search)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert problem in done.stderr
    assert "whole log" not in done.stderr  # it goes with the cluster
    assert document is None


def events(directory: Path) -> list[Any]:
    path = directory / "report" / "events.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def first_test_of(suite_class: str, directory: Path, running: subprocess.Popen[str]) -> Any:
    """The first test of a class that ended, as the journal tells while the run goes on."""
    while running.poll() is None:
        for event in events(directory):
            is_judged = event["event"] == "test" and event["worker"] != "main"
            if is_judged and suite_class in event["nodeid"]:
                return event
        time.sleep(0.1)
    raise AssertionError(running.communicate())


def start(directory: Path, hosts: RayCluster, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "--vlm-checkpoint=tiny", "--vlm-report=report"),
            *("--vlm-log-dir=logs", *TEXTS, f"--vlm-ray={hosts.address}"),
        ],
        cwd=directory,
        env={**os.environ, **hosts.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the servers answer so slowly that a class takes some seconds."""
    monkeypatch.setenv("STAND_IN", '{"slow": 0.7}')


def test_the_tests_of_a_host_that_dies_run_on_another(
    three_models: Path,
    slow: None,  # noqa: ARG001
    three_hosts: RayCluster,
) -> None:
    with start(three_models, three_hosts) as running:
        host = first_test_of("TestMiddle", three_models, running)["worker"].rpartition("-")[0]
        three_hosts.kill_host(host)
        output, _ = running.communicate()
    assert running.returncode == 0, output
    document = json.loads((three_models / "report" / "report.json").read_text("utf-8"))
    of_class = [row for row in document["rows"] if row["suite_class"] == "TestMiddle"]
    assert {row["status"] for row in of_class} <= {"pass", "na"}
    names = [(row["suite_class"], row["criterion"], row["case"]) for row in document["rows"]]
    assert len(names) == len(set(names))
    (note,) = document["receipt"]["runs"][0]["notes"]
    assert note.startswith("TestMiddle ran again on h")
    assert note.endswith(f", {host} died")
    assert note in output


def leases(directory: Path) -> dict[str, Any]:
    """Host -> its leased cards."""
    found = {}
    for name in HOSTS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(directory / name / "tmp"))
            found[name] = leased_by("npu", range(CARDS))
    return {name: cards for name, cards in found.items() if cards}


def case_of(row: Any) -> tuple[str, str]:
    return row["suite_class"], row["case"]


def test_nothing_outlives_a_driver_that_is_killed_and_its_run_goes_on(
    three_models: Path,
    slow: None,  # noqa: ARG001
    three_hosts: RayCluster,
    watch: Watch,
) -> None:
    def left() -> list[str]:
        ours = ("scheduling.child", "supervisor", "api_server", "ray::judge")
        return [name for name in watch.left_after(0) if any(word in name for word in ours)]

    with start(three_models, three_hosts, **watch.environment) as running:
        first_test_of("TestMiddle", three_models, running)
        assert left()
        assert leases(three_models.parent)
        running.send_signal(signal.SIGKILL)
        running.wait()
        deadline = time.monotonic() + GONE_WITHIN_SECONDS
        while (left() or leases(three_models.parent)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert left() == []
        assert leases(three_models.parent) == {}
    journal = events(three_models)
    passed = [row for one in journal for row in one.get("rows", ()) if row["status"] == "pass"]
    classes = [one for one in journal if one["event"] == "class"]
    assert {one["conditions"]["version of vllm"] for one in classes} == {"0.18.0"}  # its host's
    resume = (*TEXTS, f"--vlm-ray={three_hosts.address}", "--vlm-resume=report")
    done, document = judge(three_models, *resume, **three_hosts.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    taken = [row for row in document["rows"] if "taken_over" in row and row["status"] == "pass"]
    assert {case_of(row) for row in taken} == {case_of(row) for row in passed}
    assert "results taken over from report, judged on" in done.stdout
    assert {row["status"] for row in document["rows"]} == {"pass", "na"}
    names = [(*case_of(row), row["criterion"]) for row in document["rows"]]
    assert len(names) == len(set(names)) > len(passed)
    assert {suite_class for suite_class, *_ in names} == {"TestSmall", "TestMiddle", "TestLarge"}
