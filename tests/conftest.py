"""What the plugin's own tests share: a stub server, and test runs that are judged against it."""

from __future__ import annotations

import contextlib
import importlib
import json
import pkgutil
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401
import jinja2  # noqa: F401
import pygal  # noqa: F401 - importlib_metadata comes with it, see below
import pytest
import rapidfuzz.process  # noqa: F401
from fakes import misbehaving_server
from fakes.replay_server import Behaviour, Knowledge, read_goldens, serve
from helpers.catching import pytest_pyfunc_call, seen  # noqa: F401 - the hook that it describes
from helpers.outcome import Judged, Outcome, Serve
from helpers.paths import CHECKPOINT, FIXTURES, GOLDENS, MODEL_FILE, NOBODY, SLUG
from helpers.three_models import write as write_three_models
from helpers.watch import Watch

import pytest_ascend_vlm
from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.health import health
from pytest_ascend_vlm.engines.transformers.model import Encoder

# Test runs inside this process forget what they import, so all of the package and what it uses is
# imported here once: 0.2 s less for each of hundreds of runs. importlib_metadata cannot be imported
# twice: it turns off the standard library's finder of plugins, and its own would be forgotten.
for module in pkgutil.walk_packages(pytest_ascend_vlm.__path__, "pytest_ascend_vlm."):
    importlib.import_module(module.name)


@pytest.fixture(scope="session", autouse=True)
def _in_order() -> Iterator[None]:
    """Test runs inside tests keep their order, with pytest-randomly installed as well.

    They print as on a laptop: on a CI runner pytest's summary has each message in full, once more.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_ADDOPTS", "-p no:randomly")
        for variable in ("CI", "BUILD_NUMBER", "GITHUB_STEP_SUMMARY"):
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """What the stub knows: the goldens of the tiny MinerU2.5."""
    return read_goldens(GOLDENS / SLUG / "tiny", FIXTURES, CHECKPOINT)


@pytest.fixture(scope="session")
def _warm(knowledge: Knowledge) -> None:
    """Lets the client import what it imports on first use, so that no run forgets half of it.

    The same for the reference's processor: torch cannot be imported twice.
    """
    Encoder(CHECKPOINT, trust_remote_code=False)
    with serve(knowledge) as url:
        for address in (url, NOBODY):
            endpoint = Endpoint(address, knowledge.model, "none")
            client = Client(endpoint, lambda: None)
            with contextlib.closing(client), contextlib.suppress(Exception):
                client.models()
            health(endpoint, 1.0)


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
    root = misbehaving_server.install(tmp_path / "stand-in")
    monkeypatch.setenv("PYTHONPATH", str(root))
    return root


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Finds what a test started, and ends it with the test."""
    watch = Watch(tmp_path)
    yield watch
    watch.end()


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
            # Besides the pictures at the borders of the processor.
            "--vlm-examples=5",
            *served,
            *arguments,
        )
        path = directory / "report.json"
        report = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return Outcome(result, seen(report), directory)

    return run
