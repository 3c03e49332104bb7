"""Every `--vlm-*` option and `vlm_*` ini key, and what they settle."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..criteria.groups import GATE_LIST_MARKERS, GROUPS
from ..engines.address import KEY_VARIABLE, base_url
from ..errors import ConfigurationError
from ..model_files import model_files
from ..platforms import PLATFORMS, require_platform
from ..search_path import roots
from ..session.options import Options
from ..writing import unwritable_reason
from .expressions import asks_for

if TYPE_CHECKING:
    from ..gate import Pair

HARNESS_PYTHON_VARIABLE = "VLM_HARNESS_PYTHON"


def register(parser: pytest.Parser) -> None:
    """Adds the options to pytest's own."""
    group = parser.getgroup("ascend-vlm", "vision-language models on Ascend NPUs")
    group.addoption(
        "--vlm-platform",
        metavar="NAME",
        default="npu",
        help=f"where the served model runs: {', '.join(PLATFORMS)}, or one that another package "
        "registers (default: npu); a cpu run is named as one everywhere",
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
        f"comes from the environment variable {KEY_VARIABLE}",
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
        help="directory of the servers' logs, a directory a run (default: .vlm-logs under pytest's "
        "root directory); the latest 20 runs are kept",
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


def refuse_parallel(config: pytest.Config) -> None:
    """Refuses to run criteria side by side that would measure each other.

    Raises:
        pytest.UsageError: `-n` is given, and `-m` names a group that runs alone.
    """
    if getattr(config.option, "dist", "no") == "no":
        return
    for group in GROUPS.values():
        if group.runs_alone and asks_for(group.marker, config.getoption("markexpr")):
            raise pytest.UsageError(
                f"{group.name} criteria that run side by side measure each other; leave out -n"
            )


def read(config: pytest.Config) -> Options:
    """The options of a run.

    Raises:
        pytest.UsageError: two options contradict each other, one cannot work as it is, or a gate
            has no list.
    """
    try:
        return _read(config)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error


def _read(config: pytest.Config) -> Options:
    url, compare_url = _url(config, "--vlm-server-url"), _url(config, "--vlm-compare-url")
    record = config.getoption("vlm_record")
    if url and record:
        raise ConfigurationError(
            "--vlm-record runs the reference engine alone; leave out --vlm-server-url"
        )
    if config.getoption("vlm_gate") and record:
        raise ConfigurationError("--vlm-record judges nothing; leave out --vlm-gate")
    golden_dir = config.rootpath / config.getini("vlm_golden_dir")
    return Options(
        platform="endpoint" if url else require_platform(config.getoption("vlm_platform")),
        checkpoint=config.getoption("vlm_checkpoint"),
        record=record,
        required=_required(config),
        server_url=url,
        api_key=_api_key() if url or compare_url else None,
        weights_root=config.getoption("vlm_weights_root"),
        report=_writable(config, "--vlm-report"),
        log_dir=_writable(config, "--vlm-log-dir") or config.rootpath / ".vlm-logs",
        fixture_roots=roots("fixtures", config.rootpath / config.getini("vlm_fixtures_dir")),
        golden_roots=roots("golden", golden_dir),
        golden_dir=golden_dir,
        compare_url=compare_url,
        requests=config.getoption("vlm_requests"),
        save_performance=config.getoption("vlm_save_performance"),
        performance_dir=config.rootpath / config.getini("vlm_performance_dir"),
        datasets_root=config.getoption("vlm_datasets_root"),
        datasets_limit=config.getoption("vlm_datasets_limit"),
        harness_python=config.getoption("vlm_harness_python"),
    )


def _url(config: pytest.Config, option: str) -> str | None:
    typed = config.getoption(option)
    return None if typed is None else base_url(option, typed)


def _api_key() -> str | None:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            f"{KEY_VARIABLE} has a character that no HTTP header can have, such as a line "
            "break; set it again"
        )
    return key or None


def _writable(config: pytest.Config, option: str) -> Path | None:
    directory: Path | None = config.getoption(option)
    if directory is not None and (why := unwritable_reason(directory)):
        raise ConfigurationError(
            f"nothing can be written to {option}={directory} ({why}); name another directory"
        )
    return directory


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _required(config: pytest.Config) -> list[Pair] | None:
    from .. import gate

    if not config.getoption("vlm_gate"):
        return None
    path = config.rootpath / config.getini("vlm_required")
    return gate.read(path, _command_for(path, config))


def _command_for(required: Path, config: pytest.Config) -> str:
    """The command that writes a gate's list from here, for the model files of this run."""
    here = config.invocation_params.dir
    found = {path.parent for path in model_files(config)}
    directory = os.path.relpath(os.path.commonpath(found), here) if found else "DIR"
    named = [one for one in GATE_LIST_MARKERS if asks_for(one, config.getoption("markexpr"))]
    marker = ["--marker", named[0]] if named else []
    output = os.path.relpath(required, here)
    return shlex.join(["ascend-vlm", "gate-list", directory, "--output", output, *marker])
