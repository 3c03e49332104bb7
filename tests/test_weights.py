"""`--vlm-weights ID=DIR` and its ini key: what is read, and what is said of a mistake in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.outcome import Judged, Serve

from pytest_ascend_vlm.session.commands import record_command
from pytest_ascend_vlm.session.options import Options
from pytest_ascend_vlm.session.run import RUN

MINERU = "OpenDataLab/MinerU2.5-2509-1.2B"


def refusal(project: pytest.Pytester, *arguments: str) -> str:
    result = project.runpytest_inprocess("-p", "no:hypothesispytest", "--co", "-q", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stderr.str()
    assert "Traceback" not in said + result.stdout.str()
    return said


def test_both_places_are_read_and_the_command_line_wins(project: pytest.Pytester) -> None:
    for name in ("one", "other", "third"):
        project.mkdir(name)
    lines = "[pytest]\nvlm_weights =\n    an-org/a = one\n    an-org/b = third\n"
    (project.path / "tox.ini").write_text(lines, "utf-8")
    (project.path / "pytest.ini").unlink()
    config = project.parseconfigure("--vlm-weights", "an-org/a=other")
    read = config.stash[RUN].options.weights
    assert read == {"an-org/a": project.path / "other", "an-org/b": project.path / "third"}
    assert not project.parseconfigure("--vlm-checkpoint=tiny").stash[RUN].options.weights


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vlm-weights", "conformance"], "--vlm-weights conformance: type ID=DIR"),
        (["--vlm-weights", "=conformance"], "type ID=DIR"),
        (["--vlm-weights", "a="], "type ID=DIR"),
        (["--vlm-weights", "a=gone"], "--vlm-weights a=gone: there is no directory "),
        (
            ["--vlm-weights=a=conformance", "--vlm-weights=a=."],
            "--vlm-weights names two directories for a: ",
        ),
        (
            ["--vlm-weights", "a=conformance"],
            f"--vlm-weights a=...: no collected model has this id; the ids are: {MINERU}",
        ),
        (
            ["--vlm-weights", "a=conformance", "--vlm-checkpoint=tiny"],
            "--vlm-weights names full checkpoints, but --vlm-checkpoint=tiny uses none",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, project: pytest.Pytester) -> None:
    lines = refusal(project, *arguments).strip().splitlines()
    assert [line for line in lines if line.startswith("ERROR: ") and said in line]


def test_the_same_directory_twice_is_no_contradiction(project: pytest.Pytester) -> None:
    twice = [f"--vlm-weights={MINERU}={name}" for name in ("conformance", "./conformance/")]
    result = project.runpytest_inprocess("-p", "no:hypothesispytest", "--co", "-q", *twice)
    assert result.ret == pytest.ExitCode.OK


def test_an_ini_file_may_name_models_that_are_not_collected(project: pytest.Pytester) -> None:
    (project.path / "pytest.ini").write_text("[pytest]\nvlm_weights = a=conformance\n", "utf-8")
    result = project.runpytest_inprocess("-p", "no:hypothesispytest", "--co", "-q")
    assert result.ret == pytest.ExitCode.OK


def test_workers_say_it_too(three_models: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-n", "2", "--vlm-weights", "a=."]
    done = subprocess.run(command, cwd=three_models, capture_output=True, text=True, check=False)
    said = "no collected model has this id; the ids are: stand-in/large, stand-in/middle"
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode != 0


def test_other_weights_are_an_error_before_a_server_starts(
    project: pytest.Pytester, judged: Judged
) -> None:
    weights = project.mkdir("mine")
    (weights / "config.json").write_text('{"model_type": "qwen3_vl"}', "utf-8")
    (weights / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    named = ["--vlm-weights", f"{MINERU}=mine", "--vlm-platform=cpu"]
    outcome = judged(None, *named, "-k", "text_is_answered and capital]", checkpoint="full")
    assert outcome.criteria("error") == {"serving.text"}
    (reason,) = outcome.reasons("serving.text")
    assert f"{weights}: its config.json is of the architecture qwen3_vl, but" in reason
    assert "Traceback" not in outcome.text


def test_the_command_that_records_names_the_weights() -> None:
    options = Options("npu", "full", Path("logs"), weights={"a": Path("/of a"), "b": Path("/b")})
    command = record_command(options, "test_a.py", "cpu_baseline", "a")
    assert command.endswith("--vlm-checkpoint=full --vlm-weights 'a=/of a'")
    assert "--vlm-weights" not in record_command(options, "test_c.py", "cpu_baseline", "c")


def test_an_endpoint_needs_no_weights(stub: Serve, judged: Judged) -> None:
    outcome = judged(stub(), "-k", "models", checkpoint="full")
    assert outcome.criteria("pass") == {"serving.models"}
