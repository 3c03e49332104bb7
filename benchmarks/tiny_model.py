"""Serves a tiny model for benchmarks, and runs the suite on it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from pytest_ascend_vlm import ModelSpec
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.vllm.server import VllmServer
from pytest_ascend_vlm.processes.supervised import SupervisedProcess
from pytest_ascend_vlm.session.device_slot import DeviceSlot, allocate
from pytest_ascend_vlm.session.model import ModelSession
from pytest_ascend_vlm.session.options import Options
from pytest_ascend_vlm.session.run import Run

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"

Rows = list[dict[str, Any]]


class SuiteDidNotRunError(Exception):
    """The suite ended without a report; the message has its output."""


@dataclass(frozen=True)
class TinyModel:
    """A model file of `conformance/` whose model has a tiny checkpoint.

    Attributes:
        file: the file's name.
        test: the name of the test class.
    """

    file: str
    test: str

    @functools.cached_property
    def spec(self) -> ModelSpec:
        """The declared model."""
        declared: ModelSpec = runpy.run_path(str(ROOT / "conformance" / self.file))[self.test].model
        return declared

    @property
    def tests(self) -> str:
        """The argument that selects its criteria for pytest."""
        return f"{ROOT / 'conformance' / self.file}::{self.test}"


MODELS = {
    "qwen2_vl": TinyModel("test_mineru2_5.py", "TestMinerU25"),
    "qwen2_5_vl": TinyModel("test_qwen2_5_vl.py", "TestQwen25VL7B"),
    "qwen3_vl": TinyModel("test_qwen3_vl.py", "TestQwen3VL8B"),
    "glm_ocr": TinyModel("test_glm_ocr.py", "TestGlmOcr"),
    "internvl": TinyModel("test_internvl3.py", "TestInternVL3HF"),
}
"""Tiny checkpoint -> the model that is judged with it.

Those in OpenGVLab's own format are not here: they have the weights of `internvl`.
"""

MINERU = MODELS["qwen2_vl"]
MODEL = MINERU.spec


def server(
    model: TinyModel, work: Path, fixture_roots: tuple[Path, ...] = (FIXTURES,)
) -> VllmServer:
    """A server of a model's tiny checkpoint, like the suite's own; the caller starts it.

    Args:
        model: the model.
        work: a directory for its log.
        fixture_roots: the checkpoint is taken from the first of them that has it.
    """
    options = Options("cpu", "tiny", log_dir=work, fixture_roots=fixture_roots)
    session = ModelSession(Run(options, lambda _step: None), model.spec)
    with allocate(session) as allocation:  # of a CPU: it leases nothing
        own = DeviceSlot(session, "TestTiny", allocation).own_server()
    assert isinstance(own, VllmServer)
    return own


@contextlib.contextmanager
def running(
    stopped: VllmServer, serve: Mapping[str, Any] = {}, env: Mapping[str, str] = {}
) -> Iterator[Endpoint]:
    """Starts a server, and stops it at the end.

    Args:
        stopped: the server.
        serve: vLLM arguments that replace those of the model file.
        env: environment variables of the server's processes.
    """
    launch = stopped.launch
    stopped.launch = dataclasses.replace(launch, serve={**launch.serve, **serve})
    with mock.patch.dict(os.environ, env):
        stopped.start()
    try:
        yield stopped.endpoint
    finally:
        stopped.stop()


@contextlib.contextmanager
def served(work: Path) -> Iterator[Endpoint]:
    """Serves the tiny MinerU2.5 like the suite."""
    with running(server(MINERU, work)) as endpoint:
        yield endpoint


def judge(model: TinyModel, endpoint: Endpoint, work: Path, *arguments: str) -> Rows:
    """Runs the suite on an endpoint, with further arguments; returns the report's rows.

    Raises:
        SuiteDidNotRunError: if there is no report.
    """
    url = f"--vlm-server-url={endpoint.url}"
    return run_suite(model, work, (url, *arguments), {"VLM_SERVER_API_KEY": endpoint.api_key})


def run_suite(
    model: TinyModel, work: Path, arguments: tuple[str, ...], env: Mapping[str, str]
) -> Rows:
    """Runs the suite in a process that does not outlive this one; returns the report's rows.

    Raises:
        SuiteDidNotRunError: if there is no report.
    """
    report, log = work / "report", work / "suite.log"
    (report / "report.json").unlink(missing_ok=True)
    log.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", model.tests, "-q", "-p", "no:cacheprovider",
        f"--rootdir={ROOT}", "--vlm-checkpoint=tiny", f"--vlm-report={report}",
        f"--vlm-log-dir={work / 'logs'}", *arguments,
    ]  # fmt: skip
    process = SupervisedProcess(command, log, env, cwd=ROOT)
    code = process.run(lambda _seconds: None)
    if code not in {0, 1}:
        raise SuiteDidNotRunError(f"the suite did not run:\n{process.log}")
    rows: Rows = json.loads((report / "report.json").read_text("utf-8"))["rows"]
    return rows
