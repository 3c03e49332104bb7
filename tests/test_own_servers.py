"""Bad servers and engines that the suite starts itself, each in a process of its own."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fakes import offline_vllm, replay_vllm, simulated_npu
from fakes.replay_server import KEPT_MIB, VERSION
from helpers.models import model_file
from helpers.paths import REPOSITORY
from helpers.three_models import judge

from pytest_ascend_vlm import reporting

Judge = Callable[..., list[dict[str, Any]]]

# Far from both ends of what the verdict asks for: more than the budget, less than twice it.
SLOW, BUDGET = 15.0, 10.0
FEW_IMAGES = ("--vlm-soak=100",)
LOADING = ("Starting to load model /m...", f"Loading weights took {SLOW} seconds")


@pytest.fixture
def own(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Runs the project's own model file on the CPU; returns the report's rows."""
    # pytest-benchmark measures nothing in a worker of xdist; the runs in here are nobody's.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(*arguments: str, **environment: str) -> list[dict[str, Any]]:
        command = ("test_own_model.py", "--vlm-platform=cpu", *arguments)
        done, document = judge(project.path, *command, **environment)
        assert document is not None, done.stdout + done.stderr
        rows: list[dict[str, Any]] = document["rows"]
        return rows

    return run


@pytest.fixture
def stubbed(project: pytest.Pytester, own: Judge, tmp_path: Path) -> Judge:
    """The same, of a model that the stub serves and whose offline engine says one thing to all."""
    root = offline_vllm.install(replay_vllm.install(tmp_path / "stub"))
    model_file(project, "    pass")

    def run(*arguments: str, **environment: str) -> list[dict[str, Any]]:
        stub = {"PYTHONPATH": str(root), "STUB_ROOT": str(REPOSITORY)}
        return own(*arguments, **stub, **environment)

    return run


def statuses(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["criterion"]: row["status"] for row in rows}


@pytest.mark.catches("serving.ready")
@pytest.mark.parametrize(
    ("phase", "plan"),
    [
        ("weights", {"log": list(zip((0, SLOW), LOADING, strict=True))}),
        ("first image", {"slow": SLOW}),
    ],
    ids=["weights", "first image"],
)
@pytest.mark.usefixtures("stand_in_root")
def test_a_start_beyond_its_budget_fails_and_all_else_is_judged(
    phase: str, plan: dict[str, Any], project: pytest.Pytester, own: Judge
) -> None:
    budgets = {"weights": BUDGET, "first_image": BUDGET}
    model_file(project, "    pass", budgets=f"Budgets(**{budgets})")
    rows = own("-k", "ready or text_is_answered and capital]", STAND_IN=json.dumps(plan))
    assert statuses(rows) == {"serving.ready": "fail", "serving.text": "pass"}
    reason = next(row["reason"] for row in rows if row["status"] == "fail")
    assert f"closest to its budget: {phase}" in reason


@pytest.mark.parametrize(
    ("served", "in_registry"),
    [
        ("Qwen2VLForConditionalGeneration", True),
        ("TransformersMultiModalForCausalLM", False),
        ("", None),
    ],
)
@pytest.mark.usefixtures("stand_in_root")
def test_a_server_of_the_suite_is_reported_with_its_weights_memory_and_host(
    served: str, in_registry: bool | None, project: pytest.Pytester
) -> None:
    model_file(project, "    pass")
    lines = (
        f"Resolved architecture: {served}",
        "Loading model weights took 2.1563 GB",
        "GPU KV cache size: 1,024 tokens",
        "Graph capturing finished in 8 secs, took 0.31 GiB",
    )
    options = ("test_own_model.py", "--vlm-platform=cpu", "-k", "text_is_answered and capital]")
    plan = json.dumps({"log": [(0, line) for line in lines]})
    _, report = judge(project.path, *options, STAND_IN=plan)
    schema = resources.files(reporting).joinpath("report.schema.json").read_text("utf-8")
    jsonschema.validate(report, json.loads(schema))
    (model,) = report["models"]
    assert model["in_registry"] is in_registry
    assert model["memory"]["weights_gib"] == 2.1563
    assert model["memory"]["kv_cache_tokens"] == 1024
    assert model["memory"]["kv_cache_gib"] is None
    assert model["log_lines"] == ["Graph capturing finished in 8 secs, took 0.31 GiB"]
    assert model["card"]["architecture"] == "Qwen2VLForConditionalGeneration"
    assert model["card"]["rope"]["mrope_section"] == [4, 6, 6]
    assert model["unmodified"]["vllm"] is True
    assert model["unsupported"]["vqa"] == "documents only"
    assert [*model["cases"]] == ["text/capital"]
    environment = report["receipt"]["environment"]
    assert environment["python"] == platform.python_version()
    assert environment["os"].endswith(platform.machine())
    assert (environment["driver"], environment["device_memory_mib"]) == (None, None)


@pytest.mark.parametrize(
    ("defect", "test"),
    [
        pytest.param(
            "ANSWERS_TOO_MANY_IMAGES",
            "image_limit_holds",
            marks=pytest.mark.catches("serving.multi_image"),
        ),
        pytest.param(
            "ANSWERS_VIDEO",
            "unsupported_is_refused",
            marks=pytest.mark.catches("serving.unsupported"),
        ),
    ],
)
def test_a_limit_that_does_not_reach_the_server_is_caught(
    defect: str, test: str, stubbed: Judge
) -> None:
    defects = json.dumps({"--limit-mm-per-prompt": defect})
    (row,) = stubbed("-k", test, STUB_DEFECTS=defects)
    assert row["status"] == "fail"
    assert "it was answered" in row["finding"] or "it was answered" in row["reason"]


@pytest.mark.catches("parameters.choice")
def test_a_parameter_that_a_server_of_the_suite_refuses_is_a_failure(stubbed: Judge) -> None:
    (row,) = stubbed("-k", "parameters_choose and presence")
    assert row["status"] == "fail"
    assert "HTTP 400: " in row["reason"]


@pytest.mark.catches("determinism.restart")
def test_answers_that_depend_on_the_start_are_caught(stubbed: Judge) -> None:
    defects = json.dumps({"again": "TEXT_OFF_BY_ONE_TOKEN"})
    rows = stubbed("-k", "restart or text_matches and capital]", STUB_DEFECTS=defects)
    assert statuses(rows) == {"baseline.text": "pass", "determinism.restart": "fail"}


@pytest.mark.catches("serving.offline")
def test_offline_answers_of_another_system_are_caught(stubbed: Judge) -> None:
    (row,) = stubbed("-k", "offline_answers")
    assert row["status"] == "fail"
    assert row["finding"].startswith("0 of 18 answers are equal")


@pytest.mark.catches("performance.cpu_use")
def test_a_server_that_spins_while_it_waits_is_caught(stubbed: Judge) -> None:
    (row,) = stubbed("-m", "performance", "-k", "waiting_costs", STUB_SPINS="1")
    assert row["status"] == "fail"
    assert row["measured"] > row["threshold"]


@pytest.mark.catches("growth.memory")
@pytest.mark.parametrize(
    ("defect", "times"),
    [
        ("IMAGES_ARE_KEPT", 2),  # of the answer, and of the one whose client left
        ("IMAGES_OF_REFUSED_REQUESTS_ARE_KEPT", 1),
        ("IMAGES_OF_ABORTED_REQUESTS_ARE_KEPT", 1),
    ],
)
def test_memory_that_grows_with_each_image_is_caught(
    defect: str, times: int, stubbed: Judge
) -> None:
    kept = json.dumps({"--mm-processor-cache-gb": defect})
    rows = stubbed("-m", "soak", *FEW_IMAGES, STUB_DEFECTS=kept)
    assert [row["status"] for row in rows] == ["fail", "na", "pass"]
    host = rows[0]
    assert host["measured"] == pytest.approx(times * KEPT_MIB, rel=0.25)
    assert "of all processes python" in host["reason"]
    assert len(host["evidence"]["series"][0]["values"]) == 100


def test_a_soak_whose_bad_requests_are_not_refused_has_no_verdict(stubbed: Judge) -> None:
    broken = json.dumps({"--mm-processor-cache-gb": "LONG_PROMPT_GIVES_500"})
    rows = stubbed("-m", "soak", *FEW_IMAGES, STUB_DEFECTS=broken)
    assert [row["status"] for row in rows] == ["error", "na", "error"]
    assert "did not refuse a request that is longer than max_model_len=" in rows[0]["reason"]


def test_memory_that_levels_off_passes(stubbed: Judge) -> None:
    rows = stubbed("-m", "soak", *FEW_IMAGES)
    assert [row["status"] for row in rows] == ["pass", "na", "pass"]
    assert "without a card" in rows[1]["reason"]


@pytest.mark.catches("numerics.borders")
def test_numbers_that_depend_on_the_steps_are_caught(stubbed: Judge) -> None:
    rows = stubbed("-k", "borders")
    assert [row["status"] for row in rows] == ["pass", "pass"]
    noisy = json.dumps({"--max-num-batched-tokens": "LOGPROBS_ARE_NOISY"})
    row = stubbed("-k", "borders", STUB_DEFECTS=noisy)[0]
    assert row["status"] == "fail"
    assert "steps of 64 tokens" in row["finding"]


@pytest.mark.catches("determinism.preemption")
def test_answers_that_change_in_a_full_cache_are_caught(stubbed: Judge) -> None:
    (sound,) = stubbed("-k", "preemption")
    assert sound["status"] == "pass", sound["reason"]
    assert "requests were preempted 1 times; 13 of 13 answers" in sound["finding"]
    garbled = json.dumps({"--num-gpu-blocks-override": "COMPANY_CHANGES_ANSWER"})
    (row,) = stubbed("-k", "preemption", STUB_DEFECTS=garbled)
    assert row["status"] == "fail"
    assert "the first difference is in" in row["reason"]


@pytest.mark.catches("numerics.borders")
def test_numbers_that_depend_on_a_hit_are_caught(stubbed: Judge) -> None:
    changing = json.dumps({"--max-num-batched-tokens": "NUMBERS_CHANGE_A_LITTLE"})
    (row,) = stubbed("-k", "borders and prefix_hit", STUB_DEFECTS=changing)
    assert row["status"] == "fail"
    assert "cached tokens; the image is at tokens" in row["finding"]


# --- the engine's process ------------------------------------------------------------------------

STOPPED, KILLED = "recovery.stopped_engine", "recovery.killed_engine"
OF_THE_ENGINE = ("-k", "engine_shows")


@pytest.fixture
def of_another_vllm(tmp_path: Path) -> None:
    """Lets the stub be of a release in which no known failure was seen."""
    site = tmp_path / "stub"
    site.mkdir()
    simulated_npu.distribution(site, "vllm", VERSION)


@pytest.mark.usefixtures("of_another_vllm")
def test_an_engine_that_stops_and_goes_on_and_one_that_dies(stubbed: Judge) -> None:
    rows = stubbed(*OF_THE_ENGINE, STUB_ENGINE="")
    assert statuses(rows) == {STOPPED: "pass", KILLED: "pass"}
    assert rows[0]["evidence"]["health"] == 503
    assert rows[1]["evidence"]["exit_code"] == 1
    assert "EngineDeadError" in rows[1]["evidence"]["stream"]


def test_a_server_without_a_process_for_its_engine_is_an_error(stubbed: Judge) -> None:
    assert statuses(stubbed(*OF_THE_ENGINE)) == {STOPPED: "error", KILLED: "error"}


@pytest.mark.catches(STOPPED)
@pytest.mark.usefixtures("of_another_vllm")
def test_an_engine_that_does_not_go_on_as_before_is_caught(stubbed: Judge) -> None:
    (row,) = stubbed("-k", "stopped_engine", STUB_ENGINE="mixes")
    assert row["status"] == "fail"
    assert row["finding"].endswith("checks failed: the image that waited is read as before")


@pytest.mark.catches(KILLED)
@pytest.mark.usefixtures("of_another_vllm")
def test_a_server_that_hides_the_death_of_its_engine_is_caught(stubbed: Judge) -> None:
    (row,) = stubbed("-k", "killed_engine", STUB_ENGINE="patient blind stays")
    assert row["status"] == "fail"
    assert row["finding"].endswith("checks failed: the answer that was computed, /health tells it")


def test_what_released_engines_hide_is_a_known_failure(stubbed: Judge) -> None:
    rows = stubbed(*OF_THE_ENGINE, STUB_ENGINE="blind cheerful")
    assert statuses(rows) == {STOPPED: "xfail", KILLED: "xfail"}
