"""`ascend-vlm limits`: proposes limits of speed from stored runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..criteria.performance import proposed_limits
from ..errors import ConfigurationError
from ..golden.performance_runs import StoredRuns, load_all
from ..spec.thresholds import STORED_RUNS

_MARGIN = 0.2


def add_to(commands: Any) -> None:
    """Adds the subcommand."""
    limits = commands.add_parser(
        "limits",
        help="propose limits of speed from stored runs",
        description="Prints the limits that the runs stored by pytest --vlm-save-performance keep, "
        "as lines for the model file: the slowest run of each metric, with a margin. Only as many "
        f"runs as performance.baseline needs ({STORED_RUNS}) propose limits.",
    )
    limits.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path("performance"),
        metavar="DIR",
        help="directory of the stored runs (default: performance)",
    )
    limits.add_argument(
        "--margin",
        type=float,
        default=_MARGIN,
        metavar="SHARE",
        help="share of the slowest run that the limit is looser, above 0 and below 1 "
        f"(default: {_MARGIN})",
    )
    limits.set_defaults(run=_limits)


def _limits(options: argparse.Namespace) -> int:
    if not 0 < options.margin < 1:
        raise ConfigurationError(f"--margin={options.margin} is not above 0 and below 1.")
    stored = load_all(options.directory)
    if not stored:
        raise ConfigurationError(
            f"{options.directory} has no stored runs. Store {STORED_RUNS} on the device: "
            "`pytest conformance -m performance --vlm-save-performance`."
        )
    print("\n".join(_lines(one, options.margin) for one in stored))
    return 0


def _lines(stored: StoredRuns, margin: float) -> str:
    key, count = stored.key, len(stored.runs)
    device = str(key["device"])
    versions = ", ".join(f"{name} {version}" for name, version in key["versions"].items())
    head = f"# {key['model']} on {device}, {versions}\n# {stored.path}: "
    if count < STORED_RUNS:
        return (
            f"{head}{count} of {STORED_RUNS} runs are stored; store more with "
            "--vlm-save-performance\n"
        )
    proposed = "\n".join(
        f'    Limit("{one.metric}", {one.value:g}, device="{one.device}"),'
        for one in proposed_limits(stored.runs, device, margin)
    )
    return f"{head}the slowest of {count} runs, margin {margin:.0%}\nlimits=(\n{proposed}\n),\n"
