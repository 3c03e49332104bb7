"""A project with three models in one file (one, two and four cards), served by the fake server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from helpers.catching import seen

MODELS = """
import pytest
from pytest_ascend_vlm import Capability as C, ModelSpec, VLMConformance

def model(name, devices):
    return ModelSpec(
        f"stand-in/{name}",
        tiny="tiny",
        devices=devices,
        supports={C.TEXT},
        unsupported={c: "-" for c in C if c is not C.TEXT},
    )

class TestSmall(VLMConformance):
    model = model("small", 1)

class TestMiddle(VLMConformance):
    model = model("middle", 2)

    def test_own(self, client, text_case):
        assert client.complete(text_case).text == "Paris"

class TestLarge(VLMConformance):
    model = model("large", 4)
"""


def write(directory: Path) -> Path:
    """Writes the project."""
    tiny = directory / "fixtures" / "tiny" / "tiny"
    tiny.mkdir(parents=True)
    (tiny / "config.json").write_text("{}", "utf-8")
    (tiny / "model.safetensors").write_bytes(b"weights")
    (directory / "test_models.py").write_text(MODELS, "utf-8")
    (directory / "pytest.ini").write_text("[pytest]\n", "utf-8")
    return directory


def judge(
    directory: Path, *arguments: str, **environment: str
) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Runs the project's tests in a process of their own; returns its output and the report."""
    report = directory / "report" / "report.json"
    command = [
        *(sys.executable, "-m", "pytest", "--vlm-checkpoint=tiny", "--vlm-report=report"),
        *("--vlm-log-dir=logs", *arguments),
    ]
    done = subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return done, seen(json.loads(report.read_text("utf-8"))) if report.is_file() else None
