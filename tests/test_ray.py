"""`pytest --vlm-ray` on a real Ray cluster of three nodes with four simulated cards each."""

from __future__ import annotations

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

import pytest
from fakes import simulated_npu
from helpers.host import HAS_NPU
from helpers.ray_cluster import CARDS, RayCluster, cluster
from helpers.three_models import judge
from helpers.watch import Watch

from pytest_ascend_vlm.platforms.leases import leased_by

pytest.importorskip("ray", reason="Ray is not installed: pip install 'pytest-ascend-vlm[ray]'")

pytestmark = pytest.mark.skipif(HAS_NPU, reason="this host has real cards")

TEXTS = ("-m", "npu", "-k", "text_is_answered")
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
    names = ("suite_class", "criterion", "case", "status", "reason", "measured", "order")
    return [tuple(row.get(name) for name in names) for row in document["rows"]]


def test_the_rows_are_those_of_a_run_without_ray(
    three_models: Path, three_hosts: RayCluster, tmp_path: Path
) -> None:
    alone, expected = judge(three_models, *TEXTS, **simulated_host(tmp_path / "alone"))
    done, document = judge(
        three_models,
        *(*TEXTS, f"--vlm-ray={three_hosts.address}"),
        **three_hosts.environment,
    )
    assert (alone.returncode, done.returncode) == (0, 0), done.stdout + done.stderr
    assert rows(document) == rows(expected)
    assert document["receipt"]["server_starts"] == 3
    assert document["receipt"]["requests"] == expected["receipt"]["requests"]
    assert {model["host"] for model in document["models"]} == {"h1", "h2", "h3"}
    cards = {model["suite_class"]: len(model["cards"]) for model in document["models"]}
    assert cards == {"TestSmall": 1, "TestMiddle": 2, "TestLarge": 4}
    assert document["receipt"]["simulated"] is True
    last = done.stdout.splitlines()[-1]
    assert "a SIMULATED NPU, hosts h1, h2 and h3" in last


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


def test_nothing_outlives_a_driver_that_is_killed(
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
