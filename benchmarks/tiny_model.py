"""The tiny model that benchmarks serve, and the suite's verdicts on what they serve."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_ascend_vlm import ModelSpec
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.platforms.base import Allocation
from pytest_ascend_vlm.session.device_slot import DeviceSlot
from pytest_ascend_vlm.session.model import ModelSession
from pytest_ascend_vlm.session.options import Options
from pytest_ascend_vlm.session.run import Run

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
MODEL_FILE = ROOT / "conformance" / "test_mineru2_5.py"
MODEL: ModelSpec = runpy.run_path(str(MODEL_FILE))["TestMinerU25"].model

Rows = list[dict[str, Any]]


@contextlib.contextmanager
def served(work: Path, fixture_roots: tuple[Path, ...] = (FIXTURES,)) -> Iterator[Endpoint]:
    """The model's tiny checkpoint in the first root that has it, served as the suite serves it."""
    options = Options("cpu", "tiny", log_dir=work, fixture_roots=fixture_roots)
    session = ModelSession(Run(options, lambda _line: None), MODEL)
    server = DeviceSlot(session, "TestTiny", Allocation()).own_server()
    server.start()
    try:
        yield server.endpoint
    finally:
        server.stop()


def judge(endpoint: Endpoint, work: Path, *arguments: str) -> Rows:
    """The rows of one run of the suite, with more arguments, against an endpoint."""
    report = work / "report"
    command = [
        sys.executable, "-m", "pytest", str(MODEL_FILE), "-q", "-p", "no:cacheprovider",
        f"--rootdir={ROOT}", f"--vlm-server-url={endpoint.url}", "--vlm-checkpoint=tiny",
        f"--vlm-report={report}", *arguments,
    ]  # fmt: skip
    env = {**os.environ, "VLM_SERVER_API_KEY": endpoint.api_key}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in {0, 1}:
        sys.exit(f"the suite did not run:\n{done.stdout}\n{done.stderr}")
    rows: Rows = json.loads((report / "report.json").read_text("utf-8"))["rows"]
    return rows
