"""`ascend-vlm limits`: proposes limits of speed from stored runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..criteria.limits import proposed_limits
from ..errors import ConfigurationError
from ..golden.performance_runs import StoredRuns, load_all
from ..named_path import named_path
from ..spec.thresholds import STORED_RUNS

_MARGIN = 0.2


def add_to(commands: Any) -> None:
    """Adds the subcommand."""
    limits = commands.add_parser(
        "limits",
        help="propose limits of speed from stored runs",
        description="Prints the limits that the runs stored by pytest --vlm-save-performance keep, "
        "as lines for the model file: the slowest run of each metric, with a margin. Limits are "
        f"proposed from {STORED_RUNS} stored runs on, as many as performance.baseline needs.",
    )
    limits.add_argument(
        "directory",
        type=named_path,
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
        help="how much looser than the slowest run each limit is, as a share of it, above 0 and "
        f"below 1 (default: {_MARGIN})",
    )
    limits.set_defaults(run=_limits)


def _limits(options: argparse.Namespace) -> int:
    if not 0 < options.margin < 1:
        raise ConfigurationError(f"--margin={options.margin} is not above 0 and below 1.")
    if not options.directory.is_dir():
        raise ConfigurationError(
            f"{options.directory} is no directory; name the directory of the stored runs, which "
            "`pytest conformance -m performance --vlm-save-performance` writes."
        )
    stored = load_all(options.directory)
    if not stored:
        raise ConfigurationError(
            f"{options.directory} has no stored runs. Store {STORED_RUNS} on the device: "
            "`pytest conformance -m performance --vlm-save-performance`."
        )
    print("\n".join(_lines(one, options.margin) for one in stored))
    return 0


def _lines(stored: StoredRuns, margin: float) -> str:
    head = f"# {_head(stored)}\n# {stored.path}: "
    count, device = len(stored.runs), str(stored.key["device"])
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


def _head(stored: StoredRuns) -> str:
    key = stored.key
    try:
        versions = ", ".join(f"{name} {version}" for name, version in key["versions"].items())
        return f"{key['model']} on {key['device']}, {versions}"
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"the key of {stored.path} lacks the model, the device or the versions; delete the "
            "file and store runs again with --vlm-save-performance."
        ) from error
