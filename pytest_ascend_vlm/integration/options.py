"""The `--vlm-*` options and `vlm_*` ini keys."""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from ..criteria.groups import GATE_LIST_MARKERS, GROUPS
from ..engines import served_name
from ..engines.address import KEY_VARIABLE, base_url
from ..errors import ConfigurationError
from ..model_files import model_files
from ..named_path import named_path
from ..platforms import PLATFORMS, require_platform
from ..search_path import roots
from ..session.options import Options
from ..spec.thresholds import SOAK_BLOCKS
from ..writing import unwritable_reason
from . import serve_overrides, weights
from .expressions import asks_for

if TYPE_CHECKING:
    from ..gate import Pair

_Number = TypeVar("_Number", int, float)

RAY = "--vlm-ray"

HARNESS_PYTHON_VARIABLE = "VLM_HARNESS_PYTHON"

_FEWEST_SOAK_IMAGES = 10 * SOAK_BLOCKS
"""Half of them fill the caches; a block of the other half has several."""


def register(parser: pytest.Parser) -> None:
    """Registers the options and ini keys."""
    group = parser.getgroup(
        "ascend-vlm", "ascend-vlm: conformance of vision-language models on Ascend NPUs"
    )
    _add_serving(group)
    _add_endpoint(group)
    _add_run(group)
    _add_measurements(group)
    _add_ini_keys(parser)


def _add_serving(group: pytest.OptionGroup) -> None:
    """Options of where and how a model is served."""
    group.addoption(
        "--vlm-platform",
        metavar="NAME",
        default="npu",
        help=f"platform that vLLM serves the model on: {', '.join(PLATFORMS)}, or the name of a "
        "platform that another package registers (default: npu). Reports always name the platform",
    )
    group.addoption(
        "--vlm-checkpoint",
        choices=("full", "tiny"),
        default="full",
        help="full: the real weights (default). tiny: the checkpoints in fixtures/tiny, a few MB "
        "each, with the same architecture",
    )
    group.addoption(
        "--vlm-weights-root",
        metavar="DIR",
        type=named_path,
        help="directory of the full checkpoints, DIR/<organisation>/<model> (default: the caches "
        "of ModelScope and Hugging Face)",
    )
    group.addoption(
        weights.OPTION,
        metavar="ID=DIR",
        action="append",
        default=[],
        help="directory of the full checkpoint of one model; ID is its name on the hub, or that of "
        f"a variant's checkpoint. May be repeated. The ini key {weights.INI_KEY} has one ID=DIR a "
        "line",
    )
    group.addoption(
        serve_overrides.OPTION,
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a serve argument of this host, in the place of the model file's: max_model_len=8192. "
        "May be repeated. Reports name it, and a gate refuses it",
    )
    group.addoption(
        RAY,
        metavar="ADDRESS",
        help="spread the test classes over the hosts of a Ray cluster: HOST:PORT, auto for the "
        "cluster of this host, or local to start one here for this run. Each class takes the NPUs "
        "that its model needs (Ray's resource NPU). `ascend-vlm cluster` shows the hosts",
    )
    group.addoption(
        "--vlm-ray-mixed",
        action="store_true",
        help=f"with {RAY}: also use hosts whose versions, devices or systems differ. The report "
        "names the versions of each host",
    )


def _add_endpoint(group: pytest.OptionGroup) -> None:
    """Options of an endpoint that already runs."""
    group.addoption(
        "--vlm-server-url",
        metavar="URL",
        help="judge an OpenAI-compatible endpoint that already runs, http://host:port, instead of "
        f"starting vLLM. An API key is read from the environment variable {KEY_VARIABLE}",
    )
    group.addoption(
        served_name.OPTION,
        metavar="NAME",
        help="with --vlm-server-url: the model's name in requests (default: the model's id if the "
        "endpoint lists it in /v1/models, else the only name there)",
    )
    group.addoption(
        "--vlm-server-wait",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="with --vlm-server-url: wait so long for an endpoint that is still starting "
        "(default: 0)",
    )
    group.addoption(
        "--vlm-server-device",
        metavar="TEXT",
        help="with --vlm-server-url: the device behind the endpoint, such as '1 x 910B4'. Reports "
        "show it as stated by the caller",
    )


def _add_run(group: pytest.OptionGroup) -> None:
    """Options of what a run does, and of what it leaves."""
    group.addoption(
        "--vlm-record",
        action="store_true",
        help="record goldens with the reference engine (Transformers on CPU) instead of judging; "
        "with -m dataset: record the served model's scores",
    )
    group.addoption(
        "--vlm-gate",
        action="store_true",
        help="fail the run unless every criterion listed in conformance/required.txt (ini key "
        "vlm_required) passed, failed as expected, or is declared not applicable. A skipped, "
        "deselected or missing criterion fails the run. `ascend-vlm gate-list` writes the list",
    )
    group.addoption(
        "--vlm-report",
        metavar="DIR",
        type=named_path,
        help="write report.json, report.html, an adaptation document of each model in Chinese and "
        "in English with its charts, and an overview of them (adaptation.zh.md, adaptation.en.md) "
        "to DIR",
    )
    group.addoption(
        "--vlm-report-append",
        action="store_true",
        help="with --vlm-report: merge this run with the report that is in DIR, as `ascend-vlm "
        "report merge` does. The weights, device, versions and serve commands must be the same",
    )
    group.addoption(
        "--vlm-resume",
        metavar="DIR",
        type=named_path,
        help="take over the verdicts of an earlier run with --vlm-report=DIR, which may have been "
        "killed; errors, skips and missing tests run. A verdict is taken over only if the weights, "
        "versions, device, serve command, goldens, cases and the suite are the same. The report "
        "names where it came from",
    )
    group.addoption(
        "--vlm-log-dir",
        metavar="DIR",
        type=named_path,
        help="directory of the server logs, with one subdirectory per run (default: .vlm-logs in "
        "pytest's root directory). The 20 latest runs are kept",
    )


def _add_measurements(group: pytest.OptionGroup) -> None:
    """Options of opt-in measurements, and of how much is asked."""
    group.addoption(
        "--vlm-examples",
        metavar="N",
        type=_positive,
        default=Options.examples,
        help="number of generated pictures that serving.image_sizes asks (default: "
        f"{Options.examples}); serving.any_request sends a sixth as many generated sequences of "
        "requests. The same N gives the same pictures and sequences",
    )
    group.addoption(
        "--vlm-requests",
        metavar="N",
        type=_positive,
        default=Options.requests,
        help="with -m performance: number of requests at each concurrency level (default: "
        f"{Options.requests}). With 299 or more, the 99th percentile is reported too",
    )
    group.addoption(
        "--vlm-soak",
        metavar="N",
        type=_soak_images,
        default=Options.soak,
        help=f"with -m soak: number of different images to send (default: {Options.soak}, at least "
        f"{_FEWEST_SOAK_IMAGES})",
    )
    group.addoption(
        "--vlm-compare-url",
        metavar="URL",
        help="with -m performance: a second endpoint that serves the same model. Both endpoints "
        "get the same requests alternately; the judged one must not be slower",
    )
    group.addoption(
        "--vlm-save-performance",
        action="store_true",
        help="with -m performance: store the figures of this run. Later runs with the same device, "
        "versions and serve command are compared with them",
    )
    group.addoption(
        "--vlm-datasets-root",
        metavar="DIR",
        type=named_path,
        help="with -m dataset: directory of the data sets, DIR/<organisation>/<name> as on the "
        "hub. Nothing is downloaded",
    )
    group.addoption(
        "--vlm-datasets-limit",
        metavar="N",
        type=_positive,
        help="with -m dataset: evaluate only the first N questions of each subset. Not allowed "
        "with --vlm-gate",
    )
    group.addoption(
        "--vlm-harness-python",
        metavar="PYTHON",
        type=Path,
        default=Path(os.environ.get(HARNESS_PYTHON_VARIABLE, sys.executable)),
        help="with -m dataset: Python interpreter that has evalscope or lm_eval installed "
        f"(default: the environment variable {HARNESS_PYTHON_VARIABLE}, else this interpreter)",
    )


def _add_ini_keys(parser: pytest.Parser) -> None:
    parser.addini(
        weights.INI_KEY,
        "directories of full checkpoints, ID=DIR a line; --vlm-weights wins for the same ID",
        type="linelist",
    )
    parser.addini(
        "vlm_performance_dir",
        "directory of the stored performance runs (default: performance)",
        default="",
    )
    parser.addini(
        "vlm_golden_dir", "directory of this project's goldens (default: golden)", default=""
    )
    parser.addini(
        "vlm_required",
        "list of the criteria that --vlm-gate requires (default: conformance/required.txt)",
        default="conformance/required.txt",
    )
    parser.addini(
        "vlm_fixtures_dir",
        "directory of this project's cases and images (default: fixtures)",
        default="",
    )


def refuse_parallel(config: pytest.Config) -> None:
    """Rejects `-n` or `--vlm-ray` for criteria that would disturb each other's measurements.

    Raises:
        pytest.UsageError: one of them is given, and `-m` names a group that must not run in
            parallel; or both are given.
    """
    workers = "-n" if getattr(config.option, "dist", "no") != "no" else None
    hosts = RAY if config.getoption("vlm_ray") else None
    if workers and hosts:
        raise pytest.UsageError(f"{RAY} runs the classes in parallel itself; remove -n")
    for group in GROUPS.values():
        asked = asks_for(group.marker, config.getoption("markexpr"))
        if group.runs_alone and asked and (option := workers or hosts):
            raise pytest.UsageError(
                f"{group.name} criteria disturb each other's measurements in parallel; remove "
                f"{option}"
            )


def read(config: pytest.Config) -> Options:
    """Reads the options of a run.

    Raises:
        pytest.UsageError: two options contradict each other, an option's value cannot work, or
            `--vlm-gate` finds no list.
    """
    try:
        return _read(config)
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error


def _read(config: pytest.Config) -> Options:
    url, compare_url = _url(config, "--vlm-server-url"), _url(config, "--vlm-compare-url")
    _require_url(config, url, compare_url)
    _require_spreadable(config, url)
    _require_report_of_one_run(config, url)
    _require_all_for_gate(config)
    if url and config.getoption("vlm_record"):
        raise ConfigurationError(
            "--vlm-record runs only the reference engine; remove --vlm-server-url"
        )
    overrides = serve_overrides.read(config)
    golden_dir = _directory(config, "golden", may_be_absent=config.getoption("vlm_record"))
    return Options(
        platform="endpoint" if url else require_platform(config.getoption("vlm_platform")),
        checkpoint=config.getoption("vlm_checkpoint"),
        ray=config.getoption("vlm_ray"),
        ray_mixed=config.getoption("vlm_ray_mixed"),
        record=config.getoption("vlm_record"),
        required=_required(config),
        server_url=url,
        served_name=config.getoption("vlm_served_name"),
        server_wait=config.getoption("vlm_server_wait"),
        server_device=config.getoption("vlm_server_device"),
        api_key=_api_key() if url or compare_url else None,
        weights_root=config.getoption("vlm_weights_root"),
        weights=weights.read(config),
        serve_overrides=overrides,
        report=_writable(config, "--vlm-report"),
        append_report=config.getoption("vlm_report_append"),
        resume=config.getoption("vlm_resume"),
        log_dir=_writable(config, "--vlm-log-dir") or config.rootpath / ".vlm-logs",
        fixture_roots=roots("fixtures", _directory(config, "fixtures")),
        golden_roots=roots("golden", golden_dir),
        golden_dir=golden_dir,
        compare_url=compare_url,
        examples=config.getoption("vlm_examples"),
        requests=config.getoption("vlm_requests"),
        soak=config.getoption("vlm_soak"),
        save_performance=config.getoption("vlm_save_performance"),
        performance_dir=_directory(config, "performance", may_be_absent=True),
        datasets_root=config.getoption("vlm_datasets_root"),
        datasets_limit=config.getoption("vlm_datasets_limit"),
        harness_python=_program(config.getoption("vlm_harness_python")),
    )


def _require_all_for_gate(config: pytest.Config) -> None:
    """Rejects options with which a run judges less than its gate requires."""
    if not config.getoption("vlm_gate"):
        return
    if config.getoption("vlm_record"):
        raise ConfigurationError("--vlm-record judges nothing; remove --vlm-gate")
    if config.getoption("vlm_datasets_limit") is not None:
        raise ConfigurationError(
            "--vlm-datasets-limit evaluates a subset, and a subset never passes a gate; remove it"
        )


def _require_report_of_one_run(config: pytest.Config, url: str | None) -> None:
    """Rejects options about earlier verdicts where nothing shows that these still hold."""
    if config.getoption("vlm_report_append") and config.getoption("vlm_report") is None:
        raise ConfigurationError(
            "--vlm-report-append needs the report's directory; add --vlm-report=DIR"
        )
    if config.getoption("vlm_resume") is None:
        return
    if url:
        raise ConfigurationError(
            "--vlm-resume: nothing shows that an endpoint still serves the same; remove "
            "--vlm-resume or --vlm-server-url"
        )
    if config.getoption("vlm_record"):
        raise ConfigurationError("a recording goes on by itself; remove --vlm-resume")
    if config.getoption("vlm_report_append"):
        raise ConfigurationError(
            "--vlm-resume takes over what a run has judged, --vlm-report-append merges another "
            "run; resume first, then merge the two with `ascend-vlm report merge`"
        )


def _url(config: pytest.Config, option: str) -> str | None:
    typed = config.getoption(option)
    return None if typed is None else base_url(option, typed)


def _require_url(config: pytest.Config, url: str | None, compare_url: str | None) -> None:
    """Rejects an option about an endpoint in a run without one."""
    of_url = {served_name.OPTION: url, "--vlm-server-device": url}
    for option, needed in {**of_url, "--vlm-server-wait": url or compare_url}.items():
        if config.getoption(option) and not needed:
            raise ConfigurationError(f"{option} is about an endpoint; add --vlm-server-url=URL")


def _require_spreadable(config: pytest.Config, url: str | None) -> None:
    """Rejects options that write to a project or judge an endpoint, in a run on a cluster."""
    if config.getoption("vlm_ray") is None:
        if config.getoption("vlm_ray_mixed"):
            raise ConfigurationError(f"--vlm-ray-mixed is about a cluster; add {RAY}=ADDRESS")
        return
    for option, given in {
        "--vlm-server-url": url,
        "--vlm-record": config.getoption("vlm_record"),
        "--vlm-save-performance": config.getoption("vlm_save_performance"),
    }.items():
        if given:
            raise ConfigurationError(f"{option} works on one host; remove {RAY}")


def _api_key() -> str | None:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            f"{KEY_VARIABLE} contains a character that an HTTP header cannot contain, such as a "
            "line break; set it again"
        )
    return key or None


def _writable(config: pytest.Config, option: str) -> Path | None:
    directory: Path | None = config.getoption(option)
    if directory is not None and (why := unwritable_reason(directory)):
        raise ConfigurationError(
            f"cannot write to {option}={directory} ({why}); name another directory"
        )
    return directory


def directory_name(config: pytest.Config, kind: str) -> str:
    """The project's directory of a kind, relative to its root: that of the ini key, or `kind`."""
    return str(config.getini(f"vlm_{kind}_dir")) or kind


def _directory(config: pytest.Config, kind: str, *, may_be_absent: bool = False) -> Path:
    """The project's directory of a kind; `kind` itself unless the ini key names another one.

    Args:
        config: the configuration of the run.
        kind: "fixtures", "golden" or "performance".
        may_be_absent: True if a directory that the ini key names may not exist yet.
    """
    key = f"vlm_{kind}_dir"
    path = config.rootpath / directory_name(config, kind)
    if not config.getini(key) or path.is_dir() or (may_be_absent and not path.exists()):
        return path
    why = "is no directory" if path.exists() else "does not exist"
    raise ConfigurationError(
        f"the ini key {key} names {path}, which {why}; name the directory, or remove the key"
    )


def _program(typed: Path) -> Path:
    """The path of a program that is run in other directories; a link stays one."""
    return Path(shutil.which(typed) or typed).absolute()


def _seconds(text: str) -> float:
    number = _number(float, text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return number


def _positive(text: str) -> int:
    number = _number(int, text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _soak_images(text: str) -> int:
    number = _number(int, text)
    if number < _FEWEST_SOAK_IMAGES:
        raise argparse.ArgumentTypeError(
            f"{text} images are too few to see memory grow; at least {_FEWEST_SOAK_IMAGES} are "
            "needed"
        )
    return number


def _number(kind: Callable[[str], _Number], text: str) -> _Number:
    try:
        return kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error


def _required(config: pytest.Config) -> list[Pair] | None:
    from .. import gate

    if not config.getoption("vlm_gate"):
        return None
    path = config.rootpath / config.getini("vlm_required")
    return gate.read(path, _command_for(path, config))


def _command_for(required: Path, config: pytest.Config) -> str:
    """The command that writes the gate's list for the model files of this run."""
    here = config.invocation_params.dir
    found = {path.parent for path in model_files(config)}
    directory = os.path.relpath(os.path.commonpath(found), here) if found else "DIR"
    named = [one for one in GATE_LIST_MARKERS if asks_for(one, config.getoption("markexpr"))]
    marker = ["--marker", named[0]] if named else []
    output = os.path.relpath(required, here)
    return shlex.join(["ascend-vlm", "gate-list", directory, "--output", output, *marker])
