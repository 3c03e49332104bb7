"""What the plugin's own tests share: a stub server, and test runs that are judged against it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pygal  # noqa: F401 - importlib_metadata comes with it, see below
import pytest
import stand_in
from catching import pytest_pyfunc_call, seen  # noqa: F401 - the hook that catching.py describes
from stub_server import Behaviour, Knowledge, read_goldens, serve
from three_models import write as write_three_models

# Runs inside this process forget what they import. What is slow to import, or cannot be imported
# twice, is imported here once. One such is importlib_metadata: it turns off the standard library's
# finder of plugins, and its own finder would be forgotten.
import pytest_ascend_vlm.engines.vllm.server
import pytest_ascend_vlm.reporting.markdown  # noqa: F401
from pytest_ascend_vlm import ModelSpec
from pytest_ascend_vlm.criteria.criterion import criteria as declared
from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.suite.conformance import VLMConformance

REPOSITORY = Path(__file__).parents[1]
MODEL_FILE = REPOSITORY / "conformance" / "test_mineru2_5.py"
GOLDENS = REPOSITORY / "golden"
FIXTURES = REPOSITORY / "fixtures"
CHECKPOINT = FIXTURES / "tiny" / "qwen2_vl"
NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens
SLUG = "OpenDataLab--MinerU2.5-2509-1.2B"

Row = dict[str, Any]
Serve = Callable[..., str]
Judged = Callable[..., "Outcome"]


def criteria() -> dict[str, str]:
    """Every criterion of the suite: id -> name of its test method."""
    return {criterion.id: test.__name__ for criterion, test in declared(VLMConformance)}


@dataclass(frozen=True)
class Outcome:
    """How a test run inside a test ended.

    Attributes:
        result: pytest's own view of it.
        report: the content of report.json; empty where none was written.
        directory: where the report is.
    """

    result: pytest.RunResult
    report: Row
    directory: Path

    @property
    def rows(self) -> list[Row]:
        """The report's rows."""
        return list(self.report.get("rows", ()))

    @property
    def text(self) -> str:
        """All that was printed."""
        return self.result.stdout.str()

    def criteria(self, status: str) -> set[str]:
        """The criteria with at least one row of a status."""
        return {row["criterion"] for row in self.rows if row["status"] == status}

    def reasons(self, criterion: str) -> list[str]:
        """Why a criterion does not hold, one text per case."""
        red = [row for row in self.rows if row["status"] in {"fail", "error"}]
        return [row["reason"] for row in red if row["criterion"] == criterion]


@pytest.fixture(scope="session", autouse=True)
def _in_order() -> Iterator[None]:
    """Test runs inside tests keep their order, with pytest-randomly installed as well.

    They print as on a laptop: on a CI runner pytest's summary has each message in full, once more.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", "-p no:randomly")
        for variable in ("CI", "BUILD_NUMBER"):
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """What the stub knows: the goldens of the tiny MinerU2.5."""
    return read_goldens(GOLDENS / SLUG / "tiny", FIXTURES, CHECKPOINT)


@pytest.fixture(scope="session")
def _warm(knowledge: Knowledge) -> None:
    """Lets the client import what it imports on first use, so that no run forgets half of it."""
    with serve(knowledge) as url:
        for address in (url, NOBODY):
            endpoint = Endpoint(address, knowledge.model, "none")
            with contextlib.closing(Client(endpoint, lambda: None)) as client:
                with contextlib.suppress(Exception):
                    client.models()
                with contextlib.suppress(Exception):
                    client.post(b"{")


@pytest.fixture
def stub(knowledge: Knowledge) -> Iterator[Serve]:
    """Starts stub servers: `stub()` or `stub(Defect.X.value)` gives a URL."""
    with contextlib.ExitStack() as stack:

        def start(behaviour: Behaviour | None = None, **options: Any) -> str:
            return stack.enter_context(serve(knowledge, behaviour, **options))

        yield start


@pytest.fixture
def stand_in_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes the stand-in what `python -m vllm.entrypoints.openai.api_server` runs."""
    root = stand_in.install(tmp_path / "stand-in")
    monkeypatch.setenv("PYTHONPATH", str(root))
    return root


@pytest.fixture
def three_models(tmp_path: Path, stand_in_root: Path) -> Path:  # noqa: ARG001
    """A project with three models, served by the stand-in."""
    return write_three_models(tmp_path / "project")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the model file of this repository."""
    pytester.makefile(".ini", pytest="[pytest]\naddopts = --strict-markers --strict-config\n")
    (pytester.path / "conformance").mkdir()
    shutil.copy(MODEL_FILE, pytester.path / "conformance")
    return pytester


@pytest.fixture
def judged(project: pytest.Pytester, _warm: None) -> Judged:
    """Runs the project's tests against a URL: `judged(url, "-k", "models")`."""

    def run(url: str | None, *arguments: str, checkpoint: str = "tiny") -> Outcome:
        directory = project.path / "report"
        served = [f"--vlm-server-url={url}"] if url else []
        result = project.runpytest_inprocess(
            "-p",
            "no:cacheprovider",
            # It would import all of hypothesis for every run.
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:randomly",
            # The stub runs in this process too; Pillow's warning is its own.
            "-W",
            "ignore::PIL.Image.DecompressionBombWarning",
            f"--vlm-checkpoint={checkpoint}",
            f"--vlm-report={directory}",
            *served,
            *arguments,
        )
        path = directory / "report.json"
        report = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return Outcome(result, seen(report), directory)

    return run


def model_file(project: pytest.Pytester, body: str, **spec: str) -> None:
    """Writes a model file of a project's own: its class's body, and fields of its ModelSpec."""
    fields = {
        "tiny": "'qwen2_vl'",
        "serve": "{'limit_mm_per_prompt': {'image': 1, 'video': 0}}",
        "supports": "{C.TEXT, C.IMAGE, C.DOCUMENT}",
        "unsupported": "dict.fromkeys((C.VIDEO, C.VQA, C.GROUNDING), 'documents only')",
        **spec,
    }
    arguments = ", ".join(f"{name}={value}" for name, value in fields.items())
    project.makepyfile(
        test_own_model=f"""
import pytest
from pytest_ascend_vlm import Capability as C
from pytest_ascend_vlm import Budgets, ExpectedFailure, ModelSpec, Published, Thresholds
from pytest_ascend_vlm import VLMConformance

class TestOwn(VLMConformance):
    model = ModelSpec("OpenDataLab/MinerU2.5-2509-1.2B", {arguments})
{body}
"""
    )


def model_spec(**fields: Any) -> ModelSpec:
    """A valid ModelSpec with some fields of its own."""
    from pytest_ascend_vlm import Capability

    inputs = {Capability.TEXT, Capability.IMAGE}
    unsupported = {capability: "not here" for capability in Capability if capability not in inputs}
    return ModelSpec(**{"model_id": "an-org/a-model", "unsupported": unsupported, **fields})


def few_cases() -> str:
    """A `-k` that leaves out all but two texts (one Chinese), two pages and an image: quick."""
    cases = json.loads((FIXTURES / "cases.json").read_text("utf-8"))["cases"]
    names = [case["id"] for case in cases]
    texts = [name for name in names if name.startswith("text/")]
    pages = [name for name in names if name.startswith("document/")]
    images = [name for name in names if name.startswith("image/")]
    chinese = next(name for name in texts if name.endswith("-zh"))
    kept = {texts[0], chinese, *pages[:2], *images[:1]}
    return "not (" + " or ".join(f"[{name}]" for name in names if name not in kept) + ")"
