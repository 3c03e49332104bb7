"""`vllm bench latency` and `throughput`: what the tools are told, what is read, what is left."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fakes import bench_vllm, replay_vllm
from helpers.catching import seen
from helpers.models import model_spec
from helpers.outcome import documents
from helpers.paths import CHECKPOINT, REPOSITORY
from helpers.waiting import until

from pytest_ascend_vlm import Workload
from pytest_ascend_vlm.criteria.offline_load import judge_offline
from pytest_ascend_vlm.errors import PreconditionError, ServerError
from pytest_ascend_vlm.load import offline
from pytest_ascend_vlm.observation.offline_load import Batch, OfflineLoad
from pytest_ascend_vlm.platforms import select_platform

LATENCY = Workload("8x", 24, tool="latency", input_tokens=32, output_tokens=16, concurrency=8)
THROUGHPUT = Workload("all", 5, tool="throughput", input_tokens=20, output_tokens=16)
SERVE = {"seed": 7, "enable_prefix_caching": True, "enable_prompt_tokens_details": True}
AFTER_A_KILL = 30.0

Install = Callable[[str], None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a fake vLLM of one layout in the place of the installed one."""

    def install(layout: str) -> None:
        root = bench_vllm.install(tmp_path / "fake", layout)
        monkeypatch.syspath_prepend(root)
        monkeypatch.setenv("PYTHONPATH", str(root))

    return install


def measure(
    workload: Workload,
    tmp_path: Path,
    behaviour: str = "",
    seconds: float = 120.0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> OfflineLoad:
    env = {"FAKE_BENCH": behaviour}
    engine = offline.Engine(tmp_path / "weights", "an-org/a-model", SERVE, env, seconds)
    (tmp_path / "load").mkdir(exist_ok=True)
    return offline.measure(workload, 2, engine, tmp_path / "load", on_progress)


def log(tmp_path: Path) -> str:
    return (tmp_path / "load" / "tool.log").read_text("utf-8")


@pytest.mark.parametrize("layout", ["0.11", "0.32"])
def test_latency_is_that_of_the_batches_after_the_warm_up(
    layout: str, tmp_path: Path, installed: Install
) -> None:
    installed(layout)
    load = measure(LATENCY, tmp_path)
    assert load.generator == f"vllm bench latency {layout}.0"
    counts = ((32,) * 8, (16,) * 8)
    assert load.batches == tuple(Batch(seconds, *counts) for seconds in (0.5, 0.6, 0.7))
    # Two batches of warm-up, then three; tokens of text alone, of which the vocabulary has 40.
    assert log(tmp_path).count("prompts 8 32 3 39") == 5


def test_the_prompts_are_drawn_before_the_clock_starts(tmp_path: Path, installed: Install) -> None:
    installed("0.32")
    measure(LATENCY, tmp_path)
    before, _, timed = log(tmp_path).partition("the clock starts")
    assert "asked for the tokenizer" in before
    assert "asked for the tokenizer" not in timed


def test_the_progress_is_that_of_the_measured_batches(tmp_path: Path, installed: Install) -> None:
    installed("0.32")
    said: list[str] = []
    measure(LATENCY, tmp_path, "unhurried", on_progress=said.append)
    assert any(line.startswith("2 of 3, ") for line in said)


@pytest.mark.parametrize("layout", ["0.11", "0.32"])
def test_throughput_is_that_of_all_requests_together(
    layout: str, tmp_path: Path, installed: Install
) -> None:
    installed(layout)
    load = measure(THROUGHPUT, tmp_path)
    assert load.batches == (Batch(2.0, (20,) * 5, (16,) * 5),)
    assert "prompts 5 20" in log(tmp_path)


@pytest.mark.parametrize(
    ("layout", "lengths"),
    [
        ("0.11", "--input-len 20 --output-len 16"),
        ("0.32", "--random-input-len 20 --random-output-len 16"),
    ],
)
def test_the_command_is_one_that_this_vllm_understands(
    layout: str, lengths: str, tmp_path: Path, installed: Install
) -> None:
    installed(layout)
    assert measure(THROUGHPUT, tmp_path).command == (
        f"vllm bench throughput --model an-org/a-model --dataset-name random {lengths} "
        "--num-prompts 5 --seed 7 --enable-prefix-caching"
    )


def test_the_prompts_of_equal_batches_are_in_no_cache(tmp_path: Path, installed: Install) -> None:
    installed("0.32")
    words = shlex.split(measure(LATENCY, tmp_path).command)
    assert words[words.index("--num-iters") + 1] == "3"
    assert words[words.index("--batch-size") + 1] == "8"
    assert "--enable-prefix-caching" not in words
    assert "'enable_prefix_caching': None" in log(tmp_path)


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [("dies", "Segmentation fault in a kernel"), ("no-json", "FileNotFoundError")],
)
def test_a_tool_that_fails_is_an_error_with_its_log(
    behaviour: str, cause: str, tmp_path: Path, installed: Install
) -> None:
    installed("0.32")
    with pytest.raises(ServerError, match="vllm bench latency failed with") as raised:
        measure(LATENCY, tmp_path, behaviour)
    assert cause in str(raised.value)


def test_without_the_tool_it_is_said_which_vllm_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)  # an earlier test may have imported it
    with pytest.raises(PreconditionError, match=r"vllm bench latency is not installed .* 0\.11"):
        measure(LATENCY, tmp_path)


def test_a_result_of_an_earlier_run_is_not_read(tmp_path: Path, installed: Install) -> None:
    installed("0.32")
    measure(LATENCY, tmp_path)
    with pytest.raises(ServerError):
        measure(LATENCY, tmp_path, "dies")
    assert not (tmp_path / "load" / "result.json").exists()


COUNTS = {"input_tokens": [32] * 8, "output_tokens": [16] * 8}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        *(({"seconds": seconds}, "a batch that took") for seconds in (math.nan, math.inf, 0.0, -1)),
        ({"seconds": None}, "TypeError"),
        ({"output_tokens": [16] * 9}, "numbers of tokens"),
        ({"output_tokens": [None] * 8}, "numbers of tokens"),
    ],
)
def test_a_result_that_no_tool_writes_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    good = {"seconds": 0.5, **COUNTS}
    assert read(tmp_path, [good] * 3).requests == 24
    with pytest.raises(ServerError, match=f"not a result of vllm bench .*{said}"):
        read(tmp_path, [good, good, good | changes])


@pytest.mark.parametrize("batches", [0, 2, 4])
def test_a_result_of_another_number_of_batches_is_refused(batches: int, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=f"{batches} batches instead of 3"):
        read(tmp_path, [{"seconds": 0.5, **COUNTS}] * batches)


def read(directory: Path, batches: list[dict[str, Any]]) -> OfflineLoad:
    path = directory / "result.json"
    document = {"generator": "vllm bench latency", "command": "vllm", "batches": batches}
    path.write_text(json.dumps(document), "utf-8")
    return offline._read(path, LATENCY)


def test_an_engine_that_hangs_is_ended(
    tmp_path: Path, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("0.32")
    monkeypatch.setattr(offline, "ANSWER_SECONDS", 0.0)
    with pytest.raises(ServerError, match="vllm bench latency with 24 requests did not end within"):
        measure(LATENCY, tmp_path, "hangs", seconds=3.0)
    assert not _running(tmp_path)


def _running(directory: Path) -> list[psutil.Process]:
    """Processes of the test whose directory it is: the fake lies there."""
    return [
        process
        for process in psutil.process_iter(["environ", "status"])
        if str(directory) in (process.info["environ"] or {}).get("PYTHONPATH", "")
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def test_nothing_outlives_a_killed_run(tmp_path: Path, installed: Install) -> None:
    installed("0.32")
    code = (
        "import sys, pathlib; sys.path.insert(0, 'tests'); import test_offline_load as t;"
        f"t.measure(t.LATENCY, pathlib.Path({str(tmp_path)!r}), 'hangs')"
    )
    root = Path(__file__).parent.parent
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=os.environ.copy())
    try:
        until(lambda: (tmp_path / "load" / "tool.log").exists() and "pid" in log(tmp_path), 120.0)
    finally:
        runner.kill()
        runner.wait()
    until(lambda: not _running(tmp_path), AFTER_A_KILL)


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("workload", [LATENCY, THROUGHPUT], ids=["latency", "throughput"])
def test_real_vllm_measures_the_tiny_checkpoint(workload: Workload, tmp_path: Path) -> None:
    platform, model = select_platform("cpu"), model_spec(serve={"max_model_len": 512})
    serve = platform.serve_arguments(model)
    engine = offline.Engine(CHECKPOINT, "a/b", serve, platform.environment(model), 600.0)
    said: list[str] = []
    load = offline.measure(workload, 2, engine, tmp_path, said.append)
    assert load.generator.startswith(f"vllm bench {workload.tool} ")
    assert load.requests == workload.requests
    for batch in load.batches:
        assert batch.seconds > 0
        assert batch.input_tokens == (workload.input_tokens,) * workload.batch
        assert batch.output_tokens == (16,) * workload.batch
    assert said


def test_a_large_throughput_has_no_exponent() -> None:
    load = OfflineLoad("vllm bench", "vllm", (Batch(0.0375, (20,) * 5, (16,) * 5),))
    verdict = judge_offline(THROUGHPUT, load, 0, None)
    assert verdict.reason.endswith("output_throughput 2133 tok/s, total_throughput 4800 tok/s")


# --- through the suite ---------------------------------------------------------------------------

MODEL = """
from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import Figure, ModelSpec, Published, VLMConformance, Workload

class TestOwn(VLMConformance):
    model = ModelSpec(
        "OpenDataLab/MinerU2.5-2509-1.2B",
        tiny="qwen2_vl",
        serve={"seed": 7},
        supports={C.TEXT, C.IMAGE, C.DOCUMENT},
        unsupported=dict.fromkeys((C.VIDEO, C.VQA, C.GROUNDING), "documents only"),
        prompts={"document": "Extract all text from this document image."},
        workloads=(
            Workload("8x", 24, tool="latency", input_tokens=32, output_tokens=16, concurrency=8),
            Workload("all", 5, tool="throughput", input_tokens=20, output_tokens=16),
        ),
        published=Published(
            "a document", figures=(Figure(500, "ms", workload="8x", statistic="latency.mean"),)
        ),
    )
"""
REVERSED = "def pytest_collection_modifyitems(items):\n    items.reverse()\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A model that the stub serves, with the fake tools beside it."""
    (tmp_path / "test_own.py").write_text(MODEL, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    bench_vllm.install(replay_vllm.install(tmp_path / "stub"))
    return tmp_path


def judge(project: Path, what: str, behaviour: str = "") -> dict[str, Any]:
    """The report of a run."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"},
        "PYTHONPATH": os.pathsep.join([str(project / "stub"), os.environ.get("PYTHONPATH", "")]),
        "STUB_ROOT": str(REPOSITORY),
        "FAKE_BENCH": behaviour,
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--vlm-platform=cpu"]
    command += ["--vlm-checkpoint=tiny", "--vlm-report=report", "-m", "performance", "-k", what]
    done = subprocess.run(
        [*command, "--benchmark-json=timed.json"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    path = project / "report" / "report.json"
    assert path.is_file(), done.stdout + done.stderr
    report: dict[str, Any] = seen(json.loads(path.read_text("utf-8")))
    return report


def test_an_offline_engine_is_judged_and_printed(project: Path) -> None:
    # Last to first, so that the server is asked after it was stopped for the engines.
    (project / "conftest.py").write_text(REVERSED, "utf-8")
    report = judge(project, "workload or (one_at_a_time and text)")
    rows = {row["case"]: row for row in report["rows"]}
    assert set(rows) == {"text", "8x", "all"}
    assert {row["status"] for row in rows.values()} == {"pass"}, rows
    figures = {
        figure["name"]: figure["value"]
        for case in ("8x", "all")
        for figure in rows[case]["evidence"]["figures"]
    }
    assert figures == pytest.approx(
        {
            "workload.8x.latency.mean": 0.6,
            "workload.8x.latency.median": 0.6,
            "workload.all.request_throughput": 2.5,
            "workload.all.output_throughput": 40,
            "workload.all.total_throughput": 90,
        }
    )
    assert rows["8x"]["evidence"]["untold"].startswith("3 batches cannot tell p90")
    timed = json.loads((project / "timed.json").read_text("utf-8"))["benchmarks"]
    series = {one["param"]: one["stats"]["data"] for one in timed}
    assert list(series.values())[:2] == [[2.0], pytest.approx([0.5, 0.6, 0.7])]
    (text,) = (one for one in documents(project / "report", "en") if "Published figures" in one)
    commands = text.partition("## Commands to repeat it")[2]
    assert "vllm bench latency --model OpenDataLab/MinerU2.5-2509-1.2B --input-len 32" in commands
    assert "vllm bench throughput" in commands
    published = text.partition("a document")[2].partition("\n## ")[0]
    (line,) = (line for line in published.splitlines() if "workload · 8x · latency" in line)
    assert "| 600 ms (" in line
    assert "vllm bench latency 0.32.0" in line


@pytest.mark.catches("performance.workload")
def test_an_engine_whose_answers_end_early_is_not_fast(project: Path) -> None:
    report = judge(project, "workload", "ends-early")
    assert [row["status"] for row in report["rows"]] == ["fail", "fail"]
    first = report["rows"][0]
    assert first["measured"] == 0
    assert "request 1: 3 tokens instead of 16" in first["reason"]
