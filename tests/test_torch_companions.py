"""torchvision and torchaudio of the wrong build: mended in server processes, and nowhere else.

Each test starts an interpreter under the PYTHONPATH that servers get, with made-up packages first
on it, so nothing here needs PyTorch.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_ascend_vlm.engines import torch_companions

NO_OPERATOR = 'raise RuntimeError("operator torchvision::nms does not exist")'

# A CUDA build beside CPU torch: the import works once somebody declared the operators.
TORCHVISION = f"""
import torch
from . import ops
if not {{"torchvision::nms", "torchvision::qnms"}} <= set(torch.library.declared):
    {NO_OPERATOR}
transforms = "usable"
"""

TORCH = """
class library:
    declared = []
    def define(name, schema):
        assert schema == "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", schema
        library.declared.append(name)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory on the interpreter's path."""
    directory = tmp_path / "packages"
    directory.mkdir()
    return directory


def package(site: Path, name: str, body: str, **modules: str) -> None:
    (site / name).mkdir()
    for module, text in {"__init__": body, **modules}.items():
        (site / name / f"{module}.py").write_text(text, "utf-8")


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Runs code as a server process would: with the shim, then these directories, on the path."""
    inherited = os.pathsep.join(map(str, path))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": torch_companions.child_pythonpath(inherited or None)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def output(code: str, *path: Path) -> str:
    ran = python(code, *path)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_torchvision_gets_the_operators_it_misses(site: Path) -> None:
    package(site, "torch", TORCH)
    package(site, "torchvision", TORCHVISION, ops="")
    code = "import torchvision, torch; print(torchvision.transforms, torch.library.declared)"
    assert output(code, site) == "usable ['torchvision::nms', 'torchvision::qnms']"


def test_the_second_import_starts_afresh(site: Path) -> None:
    """A submodule that was half imported by the first attempt is imported again."""
    package(site, "torch", TORCH)
    counts = "import torch; seen_operators = len(torch.library.declared)"
    package(site, "torchvision", TORCHVISION, ops=counts)
    assert output("import torchvision.ops; print(torchvision.ops.seen_operators)", site) == "2"


def test_an_operator_that_exists_already_is_no_error(site: Path) -> None:
    """The native library may have declared one of the two before it gave up."""
    declares = """
class library:
    declared = ["torchvision::qnms"]
    def define(name, schema):
        if name in library.declared:
            raise RuntimeError(f"Tried to register an operator ({name}) twice")
        library.declared.append(name)
"""
    package(site, "torch", declares)
    package(site, "torchvision", TORCHVISION, ops="")
    assert output("import torchvision; print(torchvision.transforms)", site) == "usable"


@pytest.mark.parametrize("name", ["torchaudio", "torchcodec"])
def test_sound_that_does_not_load_becomes_an_empty_module(site: Path, name: str) -> None:
    fails = 'raise OSError("libcudart.so.13: cannot open shared object file")'
    package(site, name, f"from . import part\n{fails}", part="", other="")
    code = f"""
import {name}, sys
assert "{name}.part" not in sys.modules
try:
    import {name}.other
except ImportError as error:
    print("no other part:", type(error).__name__)
"""
    assert output(code, site) == "no other part: ModuleNotFoundError"


@pytest.mark.parametrize("name", ["torchvision", "torchaudio", "torchcodec"])
def test_a_package_that_imports_is_left_alone(site: Path, name: str) -> None:
    """No torch is on the path: had anything been mended, its import would have failed."""
    package(site, name, "import sys\nvalue = 1\nruns = sys.runs = getattr(sys, 'runs', 0) + 1")
    code = f"import {name}; print({name}.value, {name}.runs, {name}.__spec__.name)"
    assert output(code, site) == f"1 1 {name}"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("torchvision", "RuntimeError('another operator does not exist')"),
        ("torchvision", "OSError('libjpeg.so.8: cannot open shared object file')"),
        ("torchvision", "ImportError('torchvision needs a newer torch')"),
        ("torchaudio", "RuntimeError('sox is broken')"),
        ("some_package", "OSError('libsome.so: cannot open shared object file')"),
    ],
)
def test_another_error_passes_through(site: Path, name: str, error: str) -> None:
    package(site, name, f"raise {error}")
    ran = python(f"import {name}", site)
    assert ran.returncode == 1
    assert error.split("'")[1] in ran.stderr


def test_a_package_that_is_not_installed_stays_missing() -> None:
    code = (
        "import importlib.util, sys; sys.path = []; print(importlib.util.find_spec('torchaudio'))"
    )
    assert output(code) == "None"


def test_the_hosts_own_sitecustomize_still_runs(site: Path) -> None:
    (site / "sitecustomize.py").write_text("import sys; sys.host_was_here = True", "utf-8")
    code = "import sys, sitecustomize; print(sys.host_was_here, sitecustomize.__file__)"
    assert output(code, site) == f"True {site / 'sitecustomize.py'}"


def test_an_error_in_the_hosts_own_sitecustomize_is_shown(site: Path) -> None:
    (site / "sitecustomize.py").write_text("import not_installed_here", "utf-8")
    assert "No module named 'not_installed_here'" in python("", site).stderr


def test_a_childs_child_gets_it_too(site: Path) -> None:
    package(site, "torch", TORCH)
    package(site, "torchvision", TORCHVISION, ops="")
    code = """
import subprocess, sys
code = "import torchvision; print(torchvision.transforms)"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
"""
    assert output(code, site) == "usable"


def test_nothing_heavy_is_imported_by_it() -> None:
    heavy = "{'torch', 'numpy', 'httpx', 'openai', 'vllm', 'transformers'}"
    assert output(f"import sys; print({heavy} & set(sys.modules) or 'nothing')") == "nothing"


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)
def test_the_installed_torchvision_imports() -> None:
    """Whether it is a build that fits or not."""
    code = "import torchvision.transforms.v2 as v2; print(v2.Resize.__name__)"
    assert output(code) == "Resize"
