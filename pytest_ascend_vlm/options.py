"""Every `--vlm-*` option and `vlm_*` ini key, and what they settle."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import gate
from .errors import ConfigurationError
from .platforms import PLATFORMS
from .resources import roots

API_KEY_VARIABLE = "VLM_SERVER_API_KEY"
HARNESS_PYTHON_VARIABLE = "VLM_HARNESS_PYTHON"


@dataclass(frozen=True)
class Options:
    """What a run was asked to do.

    Attributes:
        platform: "npu", "cpu", or "endpoint" where a URL was given.
        checkpoint: "full" or "tiny".
        record: write goldens instead of judging.
        required: what a gate must see; None where the run is none.
        server_url: an endpoint that already runs.
        api_key: its key, from the environment.
        weights_root: directory of full checkpoints.
        report: directory to write the report to.
        log_dir: directory of the servers' logs.
        fixture_roots: where cases and tiny checkpoints are looked for.
        golden_roots: where goldens are looked for; the first is written to.
        golden_dir: the project's own golden directory.
        compare_url: an endpoint that speed is compared with.
        requests: requests of each level of a load.
        save_performance: store the measured figures instead of judging by stored ones.
        performance_dir: where they are stored.
        datasets_root: directory of data sets, `<organisation>/<name>` as on the hub.
        datasets_limit: ask only the first so many of each subset; None for all.
        harness_python: the interpreter that has the evaluation harnesses.
    """

    platform: str
    checkpoint: str
    record: bool
    required: list[gate.Pair] | None
    server_url: str | None
    api_key: str
    weights_root: Path | None
    report: Path | None
    log_dir: Path
    fixture_roots: tuple[Path, ...]
    golden_roots: tuple[Path, ...]
    golden_dir: Path
    compare_url: str | None = None
    requests: int = 32
    save_performance: bool = False
    performance_dir: Path = Path("performance")
    datasets_root: Path | None = None
    datasets_limit: int | None = None
    harness_python: Path = Path(sys.executable)


def register(parser: pytest.Parser) -> None:
    """Adds the options to pytest's own."""
    group = parser.getgroup("ascend-vlm", "vision-language models on Ascend NPUs")
    group.addoption(
        "--vlm-platform",
        choices=PLATFORMS,
        default="npu",
        help="where the served model runs (default: npu); a cpu run is named as one everywhere",
    )
    group.addoption(
        "--vlm-checkpoint",
        choices=("full", "tiny"),
        default="full",
        help="the real weights (default), or a few MB of the same architecture: fixtures/tiny",
    )
    group.addoption(
        "--vlm-weights-root",
        metavar="DIR",
        type=Path,
        help="directory of full checkpoints: DIR/<organisation>/<model> (default: the caches of "
        "ModelScope and Hugging Face)",
    )
    group.addoption(
        "--vlm-record",
        action="store_true",
        help="record goldens with the reference engine (Transformers on CPU); judges nothing",
    )
    group.addoption(
        "--vlm-gate",
        action="store_true",
        help="fail unless every criterion listed in conformance/required.txt (ini vlm_required) "
        "was verified: nothing passes because it was skipped, deselected or absent",
    )
    group.addoption(
        "--vlm-server-url",
        metavar="URL",
        help="judge an endpoint that already runs, http://host:port; its key, if it needs one, "
        f"comes from the environment variable {API_KEY_VARIABLE}",
    )
    group.addoption(
        "--vlm-report",
        metavar="DIR",
        type=Path,
        help="write report.json and the adaptation document (zh and en) to DIR",
    )
    group.addoption(
        "--vlm-log-dir",
        metavar="DIR",
        type=Path,
        help="directory of the servers' logs (default: .vlm-logs under pytest's root directory)",
    )
    group.addoption(
        "--vlm-requests",
        metavar="N",
        type=_positive,
        default=Options.requests,
        help="requests of each level of a load (default: 32; p99 as well from 299 on)",
    )
    group.addoption(
        "--vlm-compare-url",
        metavar="URL",
        help="with -m performance: an endpoint that serves the same model, asked in turns with the "
        "one that is judged, which must not be slower",
    )
    group.addoption(
        "--vlm-save-performance",
        action="store_true",
        help="with -m performance: store this run's figures, to judge later runs of the same "
        "device, versions and serve command by",
    )
    group.addoption(
        "--vlm-datasets-root",
        metavar="DIR",
        type=Path,
        help="with -m dataset: directory of data sets, DIR/<organisation>/<name> as on the hub; "
        "nothing is downloaded",
    )
    group.addoption(
        "--vlm-datasets-limit",
        metavar="N",
        type=_positive,
        help="ask only the first N questions of each subset; satisfies no gate",
    )
    group.addoption(
        "--vlm-harness-python",
        metavar="PYTHON",
        type=Path,
        default=Path(os.environ.get(HARNESS_PYTHON_VARIABLE, sys.executable)),
        help="the interpreter that has evalscope or lm_eval (default: this one, or the environment "
        f"variable {HARNESS_PYTHON_VARIABLE})",
    )
    parser.addini("vlm_performance_dir", "stored performance runs", default="performance")
    parser.addini("vlm_golden_dir", "the project's own goldens", default="golden")
    parser.addini("vlm_required", "what a gate must see", default="conformance/required.txt")
    parser.addini("vlm_fixtures_dir", "the project's own cases and images", default="fixtures")


def read(config: pytest.Config) -> Options:
    """The options of a run.

    Raises:
        pytest.UsageError: two options contradict each other, or a gate has no list.
    """
    url = config.getoption("vlm_server_url")
    record = config.getoption("vlm_record")
    if url and record:
        raise pytest.UsageError(
            "--vlm-record runs the reference engine alone; leave out --vlm-server-url"
        )
    if config.getoption("vlm_gate") and record:
        raise pytest.UsageError("--vlm-record judges nothing; leave out --vlm-gate")
    golden_dir = config.rootpath / config.getini("vlm_golden_dir")
    return Options(
        platform="endpoint" if url else config.getoption("vlm_platform"),
        checkpoint=config.getoption("vlm_checkpoint"),
        record=record,
        required=_required(config),
        server_url=_base(url),
        api_key=os.environ.get(API_KEY_VARIABLE, "none"),
        weights_root=config.getoption("vlm_weights_root"),
        report=config.getoption("vlm_report"),
        log_dir=config.getoption("vlm_log_dir") or config.rootpath / ".vlm-logs",
        fixture_roots=roots("fixtures", config.rootpath / config.getini("vlm_fixtures_dir")),
        golden_roots=roots("golden", golden_dir),
        golden_dir=golden_dir,
        compare_url=_base(config.getoption("vlm_compare_url")),
        requests=config.getoption("vlm_requests"),
        save_performance=config.getoption("vlm_save_performance"),
        performance_dir=config.rootpath / config.getini("vlm_performance_dir"),
        datasets_root=config.getoption("vlm_datasets_root"),
        datasets_limit=config.getoption("vlm_datasets_limit"),
        harness_python=config.getoption("vlm_harness_python"),
    )


def _base(url: str | None) -> str | None:
    return url.rstrip("/").removesuffix("/v1") if url else None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _required(config: pytest.Config) -> list[gate.Pair] | None:
    if not config.getoption("vlm_gate"):
        return None
    try:
        return gate.read(config.rootpath / config.getini("vlm_required"))
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error
