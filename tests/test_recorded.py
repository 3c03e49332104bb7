"""What is doubtful about a golden is told when it is recorded, and not only in its numbers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.goldens import answer
from helpers.models import model_spec
from helpers.outcome import documents
from helpers.paths import CHECKPOINT, FIXTURES, GOLDENS, MODEL_FILE, SLUG

from pytest_ascend_vlm.checkpoints.untaught import untaught
from pytest_ascend_vlm.criteria.recorded import doubts
from pytest_ascend_vlm.golden.store import GoldenKey, GoldenStore
from pytest_ascend_vlm.observation.answers import Reference
from pytest_ascend_vlm.spec.case_files import load_cases

# The margins of `answer()` are 0.5 nats; two of its logits may each be off by 0.04 in bf16.
SURE = answer("Paris is the capital.")


def preferring_by(nats: float, token: int, golden: Reference = SURE) -> Reference:
    """A golden that prefers one of its answer's tokens, counted from 1, by so much."""
    assert golden.numerics is not None
    fp32 = golden.numerics.fp32.copy()
    row = golden.numerics.first_answer_row + token - 1
    fp32[row, 1] = fp32[row, 0] - nats
    return dataclasses.replace(golden, numerics=dataclasses.replace(golden.numerics, fp32=fp32))


def test_a_golden_that_is_sure_of_itself_is_not_doubtful() -> None:
    assert doubts(preferring_by(0.24, 5), 64) == ()


@pytest.mark.parametrize("nats", [0.0, 0.1, 0.22])
def test_a_near_tie_is_told_with_its_token_and_what_rounding_explains(nats: float) -> None:
    (told,) = doubts(preferring_by(nats, 5), 64)
    assert told.startswith("near-ties: 1 of 22 tokens")
    assert "token 5" in told
    assert f"is {nats:.3g} nats" in told
    assert "up to 0.226" in told


def test_what_is_behind_an_answer_that_was_cut_off_was_never_chosen() -> None:
    tokens = len(SURE.token_ids or ())
    at_the_end = preferring_by(0.0, tokens)
    assert doubts(at_the_end, tokens + 1)
    cut = dataclasses.replace(at_the_end, token_ids=(at_the_end.token_ids or ())[:-1])
    assert doubts(cut, tokens - 1) == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the answer is empty"),
        ("!" * 40, "a run of 40 times '!'"),
        ("\x1b[31mab" * 10, "'\\x1b[31mab' repeated 10 times"),
    ],
)
def test_a_degenerate_answer_is_told(text: str, problem: str) -> None:
    golden = answer(text)
    (told,) = doubts(golden, len(golden.token_ids or ()))
    assert told.startswith(f"degenerate: {problem}")


def test_an_answer_that_becomes_other_tokens_is_told() -> None:
    other = dataclasses.replace(SURE, token_ids=(1, 2, 3))
    assert doubts(other, 64) == (
        "the tokens of its text in the chat template differ from the generated tokens",
    )


def test_the_goldens_of_this_repository_are_not_doubtful() -> None:
    known = {case.id: case for case in load_cases((FIXTURES,))}
    store = GoldenStore([GOLDENS], "")
    key = GoldenKey(model_spec(model_id=SLUG.replace("--", "/")), "tiny", None)
    prompts = {"document": "Extract all text from this document image."}
    model = model_spec(model_id=key.model.model_id, prompts=prompts)
    not_taught = untaught(CHECKPOINT)
    for path in (GOLDENS / SLUG / "tiny").rglob("*.json"):
        name = str(path.relative_to(GOLDENS / SLUG / "tiny").with_suffix(""))
        case = model.request(known[name])
        if case.id not in not_taught and case.group not in not_taught:
            assert doubts(store.load(key, case), case.max_tokens) == ()


# --- as a user is told ---------------------------------------------------------------------------


def record(project: Path, weights: str, *arguments: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Records two cases of a checkpoint whose weights are "taught" or "random"; lines and rows."""
    checkpoint = project / "fixtures" / "tiny" / "qwen2_vl"
    shutil.copytree(CHECKPOINT, checkpoint)
    if weights == "random":
        randomize(checkpoint / "model.safetensors")
    (project / MODEL_FILE.name).write_bytes(MODEL_FILE.read_bytes())
    (project / "pytest.ini").write_text("[pytest]\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "cpu_baseline"]
    command += ["--vlm-record", "--vlm-checkpoint=tiny", "--vlm-report=report"]
    command += ["-k", "capital] or recognition]", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    rows = json.loads((project / "report" / "report.json").read_text("utf-8"))["rows"]
    return done.stdout.splitlines(), rows


def randomize(path: Path) -> None:
    """Weights as a model has them that nobody trained."""
    import torch
    from safetensors.torch import load_file, save_file

    chance = torch.Generator().manual_seed(0)
    weights = load_file(path)
    for name, weight in weights.items():
        if weight.ndim > 1:
            weights[name] = (torch.randn(weight.shape, generator=chance) * 0.1).to(weight.dtype)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("workers", ["0", "2"])
def test_goldens_of_random_weights_cannot_be_overlooked(workers: str, tmp_path: Path) -> None:
    lines, rows = record(tmp_path, "random", "-n", workers)
    assert "2 OF 2 RECORDED GOLDENS ARE DOUBTFUL" in lines
    told = [line for line in lines if line.startswith("  TestMinerU25 ")]
    assert {line.split()[1] for line in told} == {"text/capital:", "image/recognition:"}
    assert all("near-ties: " in line or "degenerate: " in line for line in told)
    assert any(line.startswith("What to do: ") for line in lines)
    assert all(row["status"] == "recorded" and row["reason"] for row in rows)
    for language, word in (("zh", "近似并列"), ("en", "near-ties")):
        _, document = documents(tmp_path / "report", language)
        assert word in document


def test_of_goldens_that_are_sound_nothing_is_said(tmp_path: Path) -> None:
    lines, rows = record(tmp_path, "taught")
    assert not [line for line in lines if "DOUBTFUL" in line]
    assert [row["reason"] for row in rows] == ["", ""]
