"""Every `--vlm-*` option and `vlm_*` ini key, and what they settle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from .platforms import PLATFORMS
from .resources import roots

API_KEY_VARIABLE = "VLM_SERVER_API_KEY"


@dataclass(frozen=True)
class Options:
    """What a run was asked to do.

    Attributes:
        platform: "npu", "cpu", or "endpoint" where a URL was given.
        checkpoint: "full" or "tiny".
        record: write goldens instead of judging.
        required: list of what a gate must see, where the run is a gate.
        server_url: an endpoint that already runs.
        api_key: its key, from the environment.
        weights_root: directory of full checkpoints.
        report: directory to write the report to.
        log_dir: directory of the servers' logs.
        fixture_roots: where cases and tiny checkpoints are looked for.
        golden_roots: where goldens are looked for; the first is written to.
        golden_dir: the project's own golden directory.
    """

    platform: str
    checkpoint: str
    record: bool
    required: Path | None
    server_url: str | None
    api_key: str
    weights_root: Path | None
    report: Path | None
    log_dir: Path
    fixture_roots: tuple[Path, ...]
    golden_roots: tuple[Path, ...]
    golden_dir: Path


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
    parser.addini("vlm_golden_dir", "the project's own goldens", default="golden")
    parser.addini("vlm_required", "what a gate must see", default="conformance/required.txt")
    parser.addini("vlm_fixtures_dir", "the project's own cases and images", default="fixtures")


def read(config: pytest.Config) -> Options:
    """The options of a run.

    Raises:
        pytest.UsageError: two options contradict each other.
    """
    url = config.getoption("vlm_server_url")
    record = config.getoption("vlm_record")
    if url and record:
        raise pytest.UsageError(
            "--vlm-record runs the reference engine alone; leave out --vlm-server-url"
        )
    gate = config.getoption("vlm_gate")
    if gate and record:
        raise pytest.UsageError("--vlm-record judges nothing; leave out --vlm-gate")
    golden_dir = config.rootpath / config.getini("vlm_golden_dir")
    return Options(
        platform="endpoint" if url else config.getoption("vlm_platform"),
        checkpoint=config.getoption("vlm_checkpoint"),
        record=record,
        required=config.rootpath / config.getini("vlm_required") if gate else None,
        server_url=url.rstrip("/").removesuffix("/v1") if url else None,
        api_key=os.environ.get(API_KEY_VARIABLE, "none"),
        weights_root=config.getoption("vlm_weights_root"),
        report=config.getoption("vlm_report"),
        log_dir=config.getoption("vlm_log_dir") or config.rootpath / ".vlm-logs",
        fixture_roots=roots("fixtures", config.rootpath / config.getini("vlm_fixtures_dir")),
        golden_roots=roots("golden", golden_dir),
        golden_dir=golden_dir,
    )
