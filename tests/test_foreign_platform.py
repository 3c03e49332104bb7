"""A platform of another distribution: an entry point is all that it needs."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from helpers.models import model_spec
from helpers.three_models import judge

from pytest_ascend_vlm import VLMConformance, reporting
from pytest_ascend_vlm.errors import ConfigurationError
from pytest_ascend_vlm.platforms import platform_names, select_platform

PLATFORM = """
from pytest_ascend_vlm.platforms.cpu import Cpu

class Board(Cpu):
    name = "board"
    label = "a board of ours, not an NPU"
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution that registers the platform `board`."""
    site = tmp_path / "site"
    info = site / "board-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "board_platform.py").write_text(PLATFORM, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: board\nVersion: 1.0\n", "utf-8")
    entry = "[ascend_vlm.platforms]\nboard = board_platform:Board\n"
    (info / "entry_points.txt").write_text(entry, "utf-8")
    monkeypatch.syspath_prepend(site)
    return site


@pytest.mark.usefixtures("board")
def test_it_is_found_by_its_name() -> None:
    assert select_platform("board").label == "a board of ours, not an NPU"
    assert platform_names() == ("npu", "cpu", "cuda", "board")
    with pytest.raises(ConfigurationError, match="use one of npu, cpu, cuda, board"):
        select_platform("bord")


@pytest.mark.usefixtures("board")
def test_a_model_may_be_deployed_on_it_alone() -> None:
    class TestOnBoard(VLMConformance):
        __test__ = False
        model = model_spec(platforms=("board",))

    assert TestOnBoard.model.platforms == ("board",)


def test_a_model_that_is_deployed_on_an_unknown_platform_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'board' is no platform\. The platforms are npu"):

        class TestOnBoard(VLMConformance):
            __test__ = False
            model = model_spec(platforms=("board",))


def test_a_run_on_it_is_named_as_one(board: Path, three_models: Path) -> None:
    path = os.pathsep.join([str(board), os.environ["PYTHONPATH"]])
    options = ("--vlm-platform=board", "-k", "TestSmall and models_are_listed")
    done, report = judge(three_models, *options, PYTHONPATH=path)
    last = done.stdout.splitlines()[-1]
    assert "on a board of ours, not an NPU (tiny checkpoint)" in last, done.stdout
    assert (report["receipt"]["platform"], report["receipt"]["origin"]) == ("board", "board")
    schema = resources.files(reporting).joinpath("report.schema.json").read_text("utf-8")
    jsonschema.validate(report, json.loads(schema))
    document = (three_models / "report" / "adaptation.en.md").read_text("utf-8")
    assert "BOARD run: not an NPU result" in document
