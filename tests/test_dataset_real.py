"""Both harnesses against a real engine, on data in the formats that are published, offline.

They have an interpreter of their own, VLM_HARNESS_PYTHON; `tox -e tests` makes it.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from rapidfuzz.distance import Levenshtein
from test_harness import evaluate

from pytest_ascend_vlm.criteria.dataset import judge_paired
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.vllm.server import Launch, VllmServer
from pytest_ascend_vlm.errors import ConfigurationError, PreconditionError
from pytest_ascend_vlm.golden import scores
from pytest_ascend_vlm.golden.store import GoldenKey
from pytest_ascend_vlm.harnesses import harness
from pytest_ascend_vlm.harnesses.evalscope import EVALSCOPE
from pytest_ascend_vlm.harnesses.harness import EvaluationRequest, Harness
from pytest_ascend_vlm.harnesses.lm_eval import LM_EVAL
from pytest_ascend_vlm.observation.evaluation import Evaluation, Sample
from pytest_ascend_vlm.platforms.cpu import Cpu
from pytest_ascend_vlm.spec.case import Capability, Case
from pytest_ascend_vlm.spec.model import Budgets, ModelSpec

FIXTURES = Path(__file__).parents[1] / "fixtures"
DATASETS = FIXTURES / "datasets"
PYTHON = Path(os.environ.get("VLM_HARNESS_PYTHON", sys.executable))
MODEL = ModelSpec(
    "Qwen/Qwen2.5-VL-7B-Instruct",
    tiny="qwen2_5_vl",
    supports=set(Capability) - {Capability.VIDEO},
    unsupported={Capability.VIDEO: "not asked"},
)
SERVE = {
    "generation_config": "vllm",
    "dtype": "bfloat16",
    "max_model_len": 8192,
    "enforce_eager": True,
    "limit_mm_per_prompt": {"image": 7, "video": 0},
    "chat_template": str(DATASETS / "questions_only.jinja"),
}

FORM = "ANSWER: "

pytestmark = pytest.mark.vllm


class Onlooker(ThreadingHTTPServer):
    """Passes requests on to a server, keeps what was asked, and may put words before answers."""

    daemon_threads = True
    says = ""

    def __init__(self, upstream: Endpoint) -> None:
        super().__init__(("127.0.0.1", 0), _PassOn)
        self.upstream = upstream
        self.asked: list[list[dict[str, Any]]] = []

    @property
    def endpoint(self) -> Endpoint:
        return dataclasses.replace(self.upstream, url=f"http://127.0.0.1:{self.server_port}")


class _PassOn(BaseHTTPRequestHandler):
    server: Onlooker

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(json.loads(body)["messages"][-1]["content"])
        answer = httpx.post(
            self.server.upstream.url + self.path,
            content=body,
            headers={
                "Authorization": self.headers["Authorization"],
                "Content-Type": "application/json",
            },
            timeout=60,
            trust_env=False,
        )
        document = answer.json()
        for choice in document["choices"]:
            choice["message"]["content"] = self.server.says + choice["message"]["content"]
        content = json.dumps(document).encode()
        self.send_response(answer.status_code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    first = Case(
        "chart/first",
        Capability.IMAGE,
        "Which bar is the longest?",
        images=(FIXTURES / "tasks" / "chart-01.png",),
    )
    launch = Launch(
        model_path=FIXTURES / "tiny" / "qwen2_5_vl",
        served_name=MODEL.model_id,
        serve=SERVE,
        env=Cpu().environment(MODEL),
        device_env={"OMP_NUM_THREADS": "1"},
        budgets=Budgets(start=900),  # beside other servers on few cores
        log_path=tmp_path_factory.mktemp("logs") / "server.log",
    )
    server = VllmServer(launch, first, lambda _phase, _seconds: None, lambda: None)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def onlooker(server: VllmServer) -> Iterator[Onlooker]:
    onlooker = Onlooker(server.endpoint)
    threading.Thread(target=onlooker.serve_forever, daemon=True).start()
    yield onlooker
    onlooker.shutdown()
    onlooker.server_close()


@pytest.fixture(params=[EVALSCOPE, LM_EVAL], ids=lambda one: one.name)
def one(request: pytest.FixtureRequest) -> Harness:
    chosen: Harness = request.param
    try:
        harness.protocol(chosen, "docvqa_val", DATASETS, PYTHON)
    except ConfigurationError as error:
        if "VLM_HARNESS_PYTHON" in os.environ:
            raise
        pytest.skip(str(error))
    return chosen


def anls(sample: Sample) -> float:
    """The score of an answer about a document, counted here and not by a harness."""
    accepted = ast.literal_eval(sample.target)
    alike = [
        Levenshtein.normalized_similarity(text.lower(), sample.answer.strip().lower())
        for text in accepted
    ]
    return max(alike) if max(alike) >= 0.5 else 0.0


def right(sample: Sample) -> float:
    """The score of a letter, a number or a word that was given without words around it."""
    return float(sample.answer.strip().lower() == sample.target.lower())


def test_document_questions_are_scored_as_counted_here(
    one: Harness, server: VllmServer, tmp_path: Path
) -> None:
    request = EvaluationRequest("docvqa_val", DATASETS, PYTHON, server.endpoint, tmp_path)
    found = evaluate(one, request, lambda _: None)
    recount = {id_: anls(sample) for id_, sample in found.samples.items()}
    assert {id_: sample.score for id_, sample in found.samples.items()} == pytest.approx(recount)
    assert found.score == pytest.approx(sum(recount.values()) / 6)
    assert {0.0, 1.0} < {round(score, 3) for score in recount.values()}  # graded between the two
    assert found.is_complete
    assert server.endpoint.api_key not in _everything(tmp_path)


def charted(sample: Sample) -> float:
    """The score of an answer in the form that ChartQA's prompts ask for."""
    return float(sample.answer.removeprefix(FORM).strip().lower() == sample.target.lower())


def included(sample: Sample) -> float:
    """The score of an answer that has an accepted one in it."""
    accepted = ast.literal_eval(sample.target)
    return float(any(text.lower() in sample.answer.lower() for text in accepted))


OTHERS = {"infovqa_val": anls, "chartqa_test": charted, "ocrbench_test": included}


def test_no_data_set_is_left_out() -> None:
    tested = {"mmmu_val", "docvqa_val", *OTHERS}
    assert tested == EVALSCOPE.benchmarks.keys() >= LM_EVAL.benchmarks.keys()


@pytest.mark.parametrize(
    ("one", "task"),
    [
        pytest.param(one, task, id=f"{one.name}-{task}")
        for one in (EVALSCOPE, LM_EVAL)
        for task in OTHERS
        if task in one.benchmarks
    ],
    indirect=["one"],
)
def test_the_others_are_scored_as_counted_here(
    one: Harness, task: str, onlooker: Onlooker, tmp_path: Path
) -> None:
    if task == "chartqa_test":
        onlooker.says = FORM  # the tiny checkpoint was taught no such form
    request = EvaluationRequest(task, DATASETS, PYTHON, onlooker.endpoint, tmp_path)
    found = evaluate(one, request, lambda _: None)
    recount = {id_: OTHERS[task](sample) for id_, sample in found.samples.items()}
    assert {id_: sample.score for id_, sample in found.samples.items()} == pytest.approx(recount)
    assert 0 < found.score < 1
    assert found.is_complete


def test_mmmu_is_taken_up_again_and_scored_as_counted_here(
    one: Harness, onlooker: Onlooker, tmp_path: Path
) -> None:
    request = EvaluationRequest(
        "mmmu_val", DATASETS, PYTHON, onlooker.endpoint, tmp_path, concurrency=1
    )

    def interrupt(_: str) -> None:
        if harness.answered(one, tmp_path) >= 3:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        evaluate(one, request, interrupt)
        pytest.fail("it was not interrupted")
    found = evaluate(one, request, lambda _: None)

    assert 3 <= found.resumed < 30
    assert len(onlooker.asked) <= 30 + 2 * request.concurrency
    recount = {id_: right(sample) for id_, sample in found.samples.items()}
    assert {id_: sample.score for id_, sample in found.samples.items()} == recount
    assert found.score == pytest.approx(sum(recount.values()) / 30)
    assert 0 < found.score < 1
    _all_pictures_arrived(onlooker)
    _is_a_reference(found, tmp_path)


def _all_pictures_arrived(onlooker: Onlooker) -> None:
    """One question has two pictures; none of them may be dropped, nor a place left for it."""
    pictures = [sum("image_url" in part for part in content) for content in onlooker.asked]
    assert set(pictures) == {1, 2}
    texts = [part["text"] for content in onlooker.asked for part in content if "text" in part]
    assert not any("<image" in text for text in texts)


def _is_a_reference(found: Evaluation, tmp_path: Path) -> None:
    """Recorded and read again, the samples are what they were: thirty show no two points."""
    key = GoldenKey(MODEL, "tiny", None)
    engine = {"platform": "cpu", "device": "x", "versions": {}, "serve_command": "vllm serve"}
    scores.record(tmp_path / "golden", key, "mmmu_val", found, engine)
    reference = scores.load([tmp_path / "golden"], key, "mmmu_val", "")
    assert reference is not None
    assert judge_paired(reference, found, tolerance=0.1).passed
    with pytest.raises(PreconditionError, match="samples are needed"):
        judge_paired(reference, found)


def _everything(directory: Path) -> str:
    files = (path for path in directory.rglob("*") if path.is_file())
    return "".join(path.read_text("utf-8", errors="replace") for path in files)
