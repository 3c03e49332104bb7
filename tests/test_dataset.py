"""dataset.<task> through the plugin: what decides, and what is refused, whoever asked."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.models import model_file, model_spec
from helpers.outcome import Judged, Outcome, Serve

from pytest_ascend_vlm.golden import scores
from pytest_ascend_vlm.golden.store import GoldenKey
from pytest_ascend_vlm.harnesses import harness
from pytest_ascend_vlm.integration import options
from pytest_ascend_vlm.observation.evaluation import Evaluation, Protocol, Sample

PROTOCOL = Protocol("evalscope", "1.14.1", "docvqa", "anls", "d" * 64)
COUNT = 400
MODEL = "OpenDataLab/MinerU2.5-2509-1.2B"
ENGINE = {
    "platform": "cuda",
    "device": "一张卡",
    "versions": {"vllm": "0.32"},
    "serve_command": "x",
}

Asked = Callable[..., Outcome]


def evaluation(right: int, protocol: Protocol = PROTOCOL, limit: int | None = None) -> Evaluation:
    """The first so many answers are right."""
    samples = {
        f"DocVQA/{number}": Sample(float(number < right), "发票", "p", "答案", "答案")
        for number in range(limit or COUNT)
    }
    return Evaluation(protocol, samples, COUNT, limit)


@pytest.fixture
def asked(
    project: pytest.Pytester, judged: Judged, stub: Serve, monkeypatch: pytest.MonkeyPatch
) -> Asked:
    """Judges a model of which so many answers are right, by a reference that has 300."""

    def run(right: int, *arguments: str, reference: Evaluation | None) -> Outcome:
        model_file(
            project,
            "    pass",
            datasets="(__import__('pytest_ascend_vlm').DatasetTask('docvqa_val'),)",
        )
        if reference is not None:
            key = GoldenKey(model_spec(model_id=MODEL), "tiny", None)
            scores.record(Path(project.path, "golden"), key, "docvqa_val", reference, ENGINE)

        def evaluate(
            _harness: object, request: harness.EvaluationRequest, asked: Protocol, _say: object
        ) -> Evaluation:
            return evaluation(right, asked, request.limit)

        monkeypatch.setattr(harness, "evaluate", evaluate)
        monkeypatch.setattr(harness, "protocol", lambda *_: PROTOCOL)
        root = f"--vlm-datasets-root={project.path}"
        return judged(stub(), "-m", "dataset", root, *arguments, "test_own_model.py")

    return run


@pytest.mark.parametrize(
    ("right", "status"),
    [
        pytest.param(300, "pass", id="equal"),
        pytest.param(320, "pass", id="better"),
        pytest.param(270, "fail", id="worse", marks=pytest.mark.catches("dataset.<task>")),
    ],
)
def test_the_reference_decides_sample_by_sample(right: int, status: str, asked: Asked) -> None:
    outcome = asked(right, reference=evaluation(300))
    assert outcome.criteria(status) == {"dataset.docvqa_val"}, outcome.text
    (row,) = outcome.rows
    assert row["evidence"]["categories"]["发票"]["reference"] == 0.75
    assert len(row["evidence"]["flips"]) == abs(right - 300)
    assert "cuda (一张卡" in row["finding"]


def test_without_a_reference_there_is_the_command_that_records_one(asked: Asked) -> None:
    outcome = asked(300, reference=None)
    assert outcome.criteria("error") == {"dataset.docvqa_val"}
    assert "test_own_model.py -m dataset --vlm-record" in outcome.rows[0]["reason"]


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(PROTOCOL, harness="lm_eval"),
        dataclasses.replace(PROTOCOL, version="1.13.0"),
        dataclasses.replace(PROTOCOL, dataset_sha256="e" * 64),
    ],
    ids=["harness", "version", "data"],
)
def test_a_reference_of_another_kind_is_refused(other: Protocol, asked: Asked) -> None:
    outcome = asked(300, reference=evaluation(300, other))
    assert outcome.criteria("error") == {"dataset.docvqa_val"}
    assert "do not compare" in outcome.rows[0]["reason"]


def test_a_subset_is_called_one(asked: Asked) -> None:
    outcome = asked(300, "--vlm-datasets-limit=350", reference=evaluation(300))
    (row,) = outcome.rows
    assert "A SUBSET, 350 of 400 samples" in (row.get("finding") or row["reason"])


def test_a_subset_satisfies_no_gate(asked: Asked, project: pytest.Pytester) -> None:
    (project.path / "required.txt").write_text("TestOwn dataset.docvqa_val\n", "utf-8")
    project.makefile(".ini", pytest="[pytest]\nvlm_required = required.txt\n")
    green = asked(300, "--vlm-gate", reference=evaluation(300))
    assert green.result.ret == 0, green.text
    red = asked(300, "--vlm-gate", "--vlm-datasets-limit=350", reference=evaluation(300))
    assert red.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "a subset never passes a gate" in red.result.stderr.str()


def test_a_harness_is_found_from_any_directory(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = project.path / "venv" / "python"
    relative.parent.mkdir()
    relative.symlink_to(sys.executable)
    for typed, path in {"venv/python": relative, "sh": Path(shutil.which("sh") or "")}.items():
        monkeypatch.chdir(project.path)
        config = project.parseconfig(f"--vlm-harness-python={typed}")
        assert options.read(config).harness_python == path


def test_data_sets_are_asked_only_where_they_are_named(
    asked: Asked, judged: Judged, stub: Serve
) -> None:
    asked(300, reference=evaluation(300))  # writes the model file
    rows = judged(stub(), "-k", "models or dataset", "test_own_model.py").rows
    assert {row["criterion"] for row in rows} == {"serving.models"}


def test_without_its_data_a_tiny_checkpoint_is_not_asked(
    asked: Asked, judged: Judged, stub: Serve
) -> None:
    asked(300, reference=evaluation(300))
    outcome = judged(stub(), "-m", "dataset", "test_own_model.py")
    assert outcome.criteria("na") == {"dataset.docvqa_val"}
