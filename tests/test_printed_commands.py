"""The commands of a printed document, typed as they are: real vLLM serves, curl and the SDK ask."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.replay_server import Knowledge
from helpers.paths import CHECKPOINT, FIXTURES
from test_document import (
    BASH,
    MODEL,
    SERVED,
    declared,
    expected,
    fenced,
    report,
    row,
    specs,
    workload,
)

from pytest_ascend_vlm.engines.torch_companions import child_pythonpath
from pytest_ascend_vlm.engines.vllm.arguments import serve_command
from pytest_ascend_vlm.processes.supervised import SupervisedProcess
from pytest_ascend_vlm.reporting.markdown import render

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="no curl"),
]

READY_WITHIN_SECONDS = 900
# `vllm serve MODEL ...` of vLLM's build for CPUs looks for a package of the name "vllm" and ends.
VLLM = (
    f"vllm() {{ exec {sys.executable} -m vllm.entrypoints.openai.api_server "
    '--model "${@:2:1}" "${@:3}"; }\n'
)
# The same for `vllm bench serve`.
BENCH = (
    f"vllm() {{ exec {sys.executable} -c 'import argparse, sys; from vllm.benchmarks import serve; "
    "parser = argparse.ArgumentParser(); serve.add_cli_args(parser); "
    'serve.main(parser.parse_args(sys.argv[3:]))\' "$@"; }\n'
)


@pytest.fixture(scope="module")
def document() -> str:
    """A document of MinerU2.5, with the serve command of its model file."""
    (spec,) = [one for one in specs() if one.model_id == MODEL and not one.platforms]
    told = report(
        row("serving.text", None),
        workload(),
        serve_command=serve_command(MODEL, spec.serve, {}),
        workloads=[declared()],
    )
    return render(told, "en")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with the project's images, and the tiny checkpoint as what was downloaded."""
    weights = tmp_path / MODEL
    weights.parent.mkdir(parents=True)
    weights.symlink_to(CHECKPOINT)
    (tmp_path / "fixtures").symlink_to(FIXTURES)
    return tmp_path


@pytest.fixture
def environment() -> dict[str, str]:
    """What a user of a CPU has in the environment: the README says it."""
    companions = child_pythonpath(os.environ.get("PYTHONPATH"))
    return {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": companions}


@pytest.fixture
def served(document: str, here: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of the server that the printed command starts, on another port."""
    (command,) = [one for one in fenced(document, "bash") if one.startswith("vllm serve")]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = command.replace("0.0.0.0", "127.0.0.1").replace("8000", port)  # noqa: S104
    log = here / "server.log"
    process = SupervisedProcess([BASH, "-ec", VLLM + script], log, environment, here)
    url = f"http://127.0.0.1:{port}"
    with contextlib.closing(process.polled()) as polled:
        for seconds in polled:
            assert seconds < READY_WITHIN_SECONDS, process.log
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310
                break
        else:
            pytest.fail(process.log)
        yield url


def test_the_printed_server_answers_the_printed_requests(
    document: str, here: Path, environment: dict[str, str], served: str, knowledge: Knowledge
) -> None:
    def output(*command: str) -> str:
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode("utf-8")
        return done.stdout.decode("utf-8")

    requests = [one for one in fenced(document, "bash") if SERVED in one]
    text, image = (
        json.loads(output(BASH, "-ec", one.replace(SERVED, served))) for one in requests[:2]
    )
    assert text["choices"][0]["message"]["content"] == expected(knowledge, "text/name")
    page = expected(knowledge, "document/page-01")
    assert image["choices"][0]["message"]["content"] == page
    (sdk,) = [one for one in fenced(document, "python") if SERVED in one]
    assert output(sys.executable, "-c", sdk.replace(SERVED, served)) == f"{page}\n"
    (bench,) = [one for one in fenced(document, "bash") if one.startswith("vllm bench serve")]
    port = served.rpartition(":")[2]
    told = output(BASH, "-ec", f"{BENCH}{bench.replace('8000', port)}")
    assert re.search(r"Successful requests: +10\b", told)


def test_the_printed_offline_example_answers(
    document: str, here: Path, environment: dict[str, str], knowledge: Knowledge
) -> None:
    (script,) = [one for one in fenced(document, "python") if "LLM(" in one]
    (here / "example.py").write_text(script, "utf-8")
    process = SupervisedProcess(
        [sys.executable, "example.py"], here / "example.log", environment, here
    )
    assert process.run(lambda _: None) == 0, process.log
    assert expected(knowledge, "document/page-01") in process.log
