"""What a project pays that merely has the plugin installed: no heavy import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = "pytest_ascend_vlm.plugin"

# Gigabytes on disk, seconds to import.
HEAVY = ("torch", "transformers", "vllm", "openai")
# Tens of milliseconds each, and none is needed before the first criterion runs.
MIDDLING = ("PIL", "babel", "httpx", "jinja2", "numpy", "psutil", "rapidfuzz", "safetensors")

COLLECT = """
import json, sys
import pytest

pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]])
print(json.dumps(sorted(sys.modules)))
"""


def modules_after_collecting(directory: Path, *arguments: str) -> set[str]:
    """What a pytest process has imported; of all plugins only those that are asked for."""
    ran = subprocess.run(
        [sys.executable, "-c", COLLECT, *arguments],
        cwd=directory,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return set(json.loads(ran.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What the plugin brings into a pytest process that collects an empty project."""
    empty = tmp_path_factory.mktemp("empty")
    without = modules_after_collecting(empty)
    with_it = modules_after_collecting(empty, "-p", PLUGIN)
    assert PLUGIN in with_it - without
    return with_it - without


@pytest.mark.parametrize("name", HEAVY + MIDDLING)
def test_an_empty_project_does_not_import(name: str, imported: set[str]) -> None:
    assert name not in imported


def test_a_model_file_is_collected_without_the_heavy_ones(tmp_path: Path) -> None:
    """Collecting on a laptop or in an editor asks for cases, not for an engine."""
    model_file = """
from pytest_ascend_vlm import Capability as C, ModelSpec, VLMConformance

class TestModel(VLMConformance):
    model = ModelSpec(
        "some/model",
        supports={C.TEXT},
        unsupported=dict.fromkeys(set(C) - {C.TEXT}, "-"),
    )
"""
    (tmp_path / "test_model.py").write_text(model_file, "utf-8")
    modules = modules_after_collecting(tmp_path, "-p", PLUGIN)
    assert "pytest_ascend_vlm.suite.serving" in modules
    assert not modules & set(HEAVY)
