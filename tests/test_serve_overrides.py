"""`--vlm-serve`: serve arguments of this host, in the place of a model file's."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.models import model_file
from helpers.outcome import Judged, Serve

BODY = """
    def test_it(self):
        assert self.model.serve["max_model_len"] == 4096
        assert self.model.serve["dtype"] == "bfloat16"
        assert self.model.serve["enforce_eager"] is False
        assert "seed" not in self.model.serve
        assert self.model.serve["limit_mm_per_prompt"] == {"image": 2, "video": 0}
"""
SERVE = (
    "{'seed': 1, 'max_model_len': 32768, 'dtype': 'bfloat16', 'limit_mm_per_prompt': {'image': 1}}"
)
TYPED = (
    "--vlm-serve=enforce_eager=False",
    "--vlm-serve=seed=None",
    "--vlm-serve=max_model_len=4096",
    '--vlm-serve=limit_mm_per_prompt={"image":2,"video":0}',
)


def test_everything_sees_the_argument_and_the_report_names_it(
    project: pytest.Pytester, judged: Judged
) -> None:
    model_file(project, BODY, serve=SERVE)
    outcome = judged(None, "test_own_model.py", "-k", "test_it or models_are_listed", *TYPED)
    assert "1 passed" in outcome.text
    receipt: dict[str, Any] = outcome.report["receipt"]
    limits = {"image": 2, "video": 0}
    assert receipt["serve_overrides"] == {
        "enforce_eager": False,
        "seed": None,
        "max_model_len": 4096,
        "limit_mm_per_prompt": limits,
    }
    for language in ("en", "zh"):
        page = (outcome.directory / f"adaptation.{language}.md").read_text("utf-8")
        assert "`--vlm-serve`" in page
        assert "max\\_model\\_len=4096" in page


def said(judged: Judged, *arguments: str, url: str | None = None) -> str:
    outcome = judged(url, "-k", "models_are_listed", *arguments)
    assert outcome.result.ret not in {0, pytest.ExitCode.NO_TESTS_COLLECTED}
    text = outcome.text + outcome.result.stderr.str()
    assert "Traceback" not in text
    return text


def test_what_the_suite_sets_itself_stays_its_own(judged: Judged) -> None:
    assert "serve sets port, which the suite sets itself" in said(judged, "--vlm-serve=port=1")


@pytest.mark.parametrize("typed", ["max_model_len", "=1", "seed="])
def test_what_is_no_pair_is_one_line(typed: str, judged: Judged) -> None:
    assert f"--vlm-serve {typed}: type NAME=VALUE" in said(judged, f"--vlm-serve={typed}")


def test_a_gate_judges_what_the_files_declare(judged: Judged) -> None:
    told = said(judged, "--vlm-serve=seed=1", "--vlm-gate")
    assert "--vlm-gate judges what the model files declare" in told


def test_a_server_that_runs_already_has_its_arguments(judged: Judged, stub: Serve) -> None:
    told = said(judged, "--vlm-serve=seed=1", url=stub())
    assert "--vlm-serve is about servers that the suite starts" in told


def test_a_run_without_servers_has_no_arguments(judged: Judged) -> None:
    told = said(judged, "--vlm-serve=seed=1", "--vlm-record")
    assert "--vlm-serve is about servers, and --vlm-record starts none" in told


@pytest.mark.vllm
def test_a_word_that_belongs_to_no_argument_is_refused(judged: Judged) -> None:
    told = said(judged, "--vlm-serve=enable_prefix_caching=no", "--vlm-platform=cpu")
    assert "'no' does not belong to any argument; write True or False" in told
