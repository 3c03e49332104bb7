"""Harnesses as processes: what is asked of them, what is read, what is left when they die.

The harness here is a script of a few lines; the real ones are in test_dataset_real.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.errors import ConfigurationError, PreconditionError, ServerError
from pytest_ascend_vlm.harnesses import harness
from pytest_ascend_vlm.harnesses.evalscope import EVALSCOPE
from pytest_ascend_vlm.harnesses.harness import (
    API_KEY_VARIABLE,
    Benchmark,
    EvaluationRequest,
    Harness,
)
from pytest_ascend_vlm.harnesses.lm_eval import LM_EVAL
from pytest_ascend_vlm.observation.evaluation import Evaluation, Protocol

DATASETS = Path(__file__).parents[1] / "fixtures" / "datasets"
ENDPOINT = Endpoint("http://127.0.0.1:9", "组织/模型", "a secret key")

# Its name is that of a distribution that is installed, so that its version can be told.
CHILD = """
import json, os, pathlib, subprocess, sys, time
job = json.loads(pathlib.Path(sys.argv[1]).read_text("utf-8"))
work = pathlib.Path(job["work_dir"])
answers = work / "answers.jsonl"
(work / "asked.json").write_text('{"asked": 4}')
done = answers.read_text("utf-8").count("\\n") if answers.exists() else 0
for number in range(done, 4):
    with answers.open("a", encoding="utf-8") as file:
        file.write("答案\\n")
    print("answered", number, flush=True)
    time.sleep(PAUSE)
    if number == DIES_AFTER:
        sys.exit("out of memory")
(work / "env.json").write_text(json.dumps(dict(os.environ)))
result = {"version": "1", "reported": REPORTED, "total": 4, "samples": [
    {"id": f"s/{n}", "category": "s", "score": n / 4, "prompt": "p", "answer": "", "target": ""}
    for n in IDS
]}
(work / "result.json").write_text(json.dumps(result))
"""

Make = Callable[..., Harness]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A harness that answers four questions, or dies after one of them."""

    def harness_that(**behaviour: object) -> Harness:
        facts = {"PAUSE": 0, "DIES_AFTER": None, "REPORTED": 0.375, "IDS": [0, 1, 2, 3]} | behaviour
        script = tmp_path / "child.py"
        script.write_text("\n".join(f"{k} = {v!r}" for k, v in facts.items()) + CHILD, "utf-8")
        benchmark = Benchmark("task", "lmms-lab/DocVQA", "validation", ("DocVQA",), "anls")
        return Harness("pytest", "pytest", str(script), "answers.jsonl", {"docvqa_val": benchmark})

    return harness_that


@pytest.fixture
def request_(tmp_path: Path) -> EvaluationRequest:
    return EvaluationRequest(
        "docvqa_val", DATASETS, Path(sys.executable), ENDPOINT, tmp_path / "work"
    )


def silent(_: str) -> None:
    pass


def evaluate(one: Harness, request: EvaluationRequest, say: Callable[[str], None]) -> Evaluation:
    """What a harness finds of the data as it is."""
    asked = harness.protocol(one, request.task, request.root, request.python)
    return harness.evaluate(one, request, asked, say)


def test_scores_come_with_what_they_are_worth(make: Make, request_: EvaluationRequest) -> None:
    found = evaluate(make(), request_, silent)
    assert found.score == 0.375
    assert found.protocol.harness == "pytest"
    assert found.protocol.version == pytest.__version__
    assert found.is_complete
    assert found.resumed == 0


def test_scores_are_stamped_with_the_protocol_that_was_resolved(
    make: Make, request_: EvaluationRequest
) -> None:
    asked = Protocol("pytest", "as it was", "task", "anls", "d" * 64)
    assert harness.evaluate(make(), request_, asked, silent).protocol == asked


def test_the_key_travels_in_the_environment_alone(make: Make, request_: EvaluationRequest) -> None:
    evaluate(make(), request_, silent)
    env = json.loads((request_.work_dir / "env.json").read_text("utf-8"))
    assert env[API_KEY_VARIABLE] == "a secret key"
    assert "a secret key" not in (request_.work_dir / "job.json").read_text("utf-8")
    assert "127.0.0.1" in env["NO_PROXY"]
    assert env["HF_DATASETS_OFFLINE"] == env["HF_HUB_OFFLINE"] == "1"


def test_progress_is_told(make: Make, request_: EvaluationRequest) -> None:
    said: list[str] = []
    evaluate(make(PAUSE=1.0), request_, said.append)
    assert any("of 4, about" in line for line in said)


def test_one_that_dies_says_why_and_is_taken_up_again(
    make: Make, request_: EvaluationRequest
) -> None:
    with pytest.raises(ServerError, match=r"died.*after 2 answers") as caught:
        evaluate(make(DIES_AFTER=1), request_, silent)
    assert "out of memory" in str(caught.value)
    found = evaluate(make(), request_, silent)
    assert found.resumed == 2
    log = (request_.work_dir / harness.LOG).read_text("utf-8")
    assert log.count("answered 1") == 1
    assert log.count("answered 2") == 1


def test_one_that_ended_is_not_taken_up_again(make: Make, request_: EvaluationRequest) -> None:
    evaluate(make(), request_, silent)
    assert evaluate(make(), request_, silent).resumed == 0


def test_a_report_that_its_samples_deny_is_an_error(
    make: Make, request_: EvaluationRequest
) -> None:
    with pytest.raises(ServerError, match=r"reports 0\.5000.*have the mean 0\.3750"):
        evaluate(make(REPORTED=0.5), request_, silent)


@pytest.mark.parametrize("ids", [[0, 0, 1], []])
def test_samples_scored_twice_or_never_are_an_error(
    make: Make, request_: EvaluationRequest, ids: list[int]
) -> None:
    with pytest.raises(ServerError, match="scored no sample, or one of them twice"):
        evaluate(make(IDS=ids, REPORTED=0.25), request_, silent)


def test_one_that_stands_still_is_ended(
    make: Make, request_: EvaluationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "STALL_SECONDS", 2.0)
    with pytest.raises(ServerError, match="no answer for"):
        evaluate(make(PAUSE=60), request_, silent)
    assert not _children(request_)


def test_nothing_outlives_an_interrupted_run(make: Make, request_: EvaluationRequest) -> None:
    def stop(_: str) -> None:
        if harness.answered(make(PAUSE=60), request_.work_dir):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(make(PAUSE=60), request_, stop)
    assert not _children(request_)


def _children(request: EvaluationRequest) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = [p for p in psutil.process_iter(["cmdline"]) if _is_of(p, request)]
        if not left:
            return []
        threading.Event().wait(0.2)
    return left


def _is_of(process: psutil.Process, request: EvaluationRequest) -> bool:
    return str(request.work_dir / "job.json") in (process.info["cmdline"] or ())


# --- what has to be there --------------------------------------------------------------------


@pytest.mark.parametrize("one", [EVALSCOPE, LM_EVAL], ids=lambda one: one.name)
def test_data_that_is_absent_says_what_to_get_and_where(one: Harness, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError) as caught:
        one.benchmark("mmmu_val").files(tmp_path)
    message = str(caught.value)
    assert "hf download MMMU/MMMU --repo-type dataset" in message
    assert str(tmp_path / "MMMU" / "MMMU") in message
    assert "Accounting" in message


def test_half_a_data_set_is_none(tmp_path: Path) -> None:
    home = tmp_path / "lmms-lab" / "DocVQA"
    (home / "DocVQA").mkdir(parents=True)
    (home / "DocVQA" / "validation-00000-of-00001.parquet").touch()
    benchmark = EVALSCOPE.benchmark("docvqa_val")
    with pytest.raises(PreconditionError, match=r"README\.md is missing"):
        benchmark.files(tmp_path)
    (home / "README.md").touch()
    assert len(benchmark.files(tmp_path)) == 1


def test_the_committed_data_is_complete() -> None:
    assert len(EVALSCOPE.benchmark("mmmu_val").files(DATASETS)) == 30
    assert len(LM_EVAL.benchmark("docvqa_val").files(DATASETS)) == 1
    total = sum(path.stat().st_size for path in DATASETS.rglob("*") if path.is_file())
    assert total < 300_000


def test_a_changed_picture_is_another_data_set(make: Make, request_: EvaluationRequest) -> None:
    asked = harness.protocol(make(), "docvqa_val", DATASETS, request_.python)
    copied = request_.work_dir / "lmms-lab" / "DocVQA"
    (copied / "DocVQA").mkdir(parents=True)
    (copied / "README.md").touch()
    shard = "DocVQA/validation-00000-of-00001.parquet"
    data = (DATASETS / "lmms-lab" / "DocVQA" / shard).read_bytes()
    (copied / shard).write_bytes(data)
    same = harness.protocol(make(), "docvqa_val", request_.work_dir, request_.python)
    (copied / shard).write_bytes(data + b"\0")
    other = harness.protocol(make(), "docvqa_val", request_.work_dir, request_.python)
    assert same == asked
    assert other.dataset_sha256 != asked.dataset_sha256


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="docvqa_val"):
        LM_EVAL.benchmark("mathvista")


def test_a_harness_that_is_not_installed_says_how(make: Make, request_: EvaluationRequest) -> None:
    absent = dataclasses.replace(make(), name="no-such-harness", package="no-such-harness[api]")
    with pytest.raises(ConfigurationError, match=r"pip install 'no-such-harness\[api\]'"):
        evaluate(absent, request_, silent)


def test_an_interpreter_that_is_not_there_is_named(make: Make, request_: EvaluationRequest) -> None:
    nowhere = dataclasses.replace(request_, python=Path("/nowhere/python"))
    with pytest.raises(ConfigurationError, match="/nowhere/python"):
        evaluate(make(), nowhere, silent)


def test_the_committed_data_is_what_its_script_writes(tmp_path: Path) -> None:
    python = os.environ.get("VLM_HARNESS_PYTHON")
    if python is None:
        pytest.skip("VLM_HARNESS_PYTHON is not set; tox -e tests sets it")
    script = DATASETS.parent / "generate" / "make_datasets.py"
    subprocess.run([python, str(script), str(tmp_path)], check=True)
    files = {
        path.relative_to(DATASETS) for path in DATASETS.rglob("*.*") if path.suffix != ".jinja"
    }
    written = tmp_path / "datasets"
    assert {path.relative_to(written) for path in written.rglob("*.*")} == files
    # Versions of pyarrow write other bytes of one content.
    compare = (
        "import sys, pyarrow.parquet as p; a, b = map(p.read_table, sys.argv[1:]); assert a == b"
    )
    for file in sorted(files):
        if file.suffix == ".parquet" and file.parent.name in {"Art", "Accounting", "DocVQA"}:
            pair = [str(DATASETS / file), str(written / file)]
            subprocess.run([python, "-c", compare, *pair], check=True)
        elif file.suffix == ".md":
            assert (DATASETS / file).read_bytes() == (written / file).read_bytes()
