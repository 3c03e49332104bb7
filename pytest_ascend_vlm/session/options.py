"""What a run was asked to do."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..gate import Pair


@dataclass(frozen=True)
class Options:
    """What a run was asked to do.

    Attributes:
        platform: "npu", "cpu", or "endpoint" where a URL was given.
        checkpoint: "full" or "tiny".
        log_dir: directory of the logs of all runs, and of work that the next run goes on with.
        record: write goldens instead of judging.
        required: what a gate must see; None where the run is none.
        server_url: an endpoint that already runs.
        api_key: its key, from the environment; None where there is none. Never shown.
        weights_root: directory of full checkpoints.
        report: directory to write the report to.
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
    log_dir: Path
    record: bool = False
    required: list[Pair] | None = None
    server_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    weights_root: Path | None = None
    report: Path | None = None
    fixture_roots: tuple[Path, ...] = ()
    golden_roots: tuple[Path, ...] = ()
    golden_dir: Path = Path("golden")
    compare_url: str | None = None
    requests: int = 32
    save_performance: bool = False
    performance_dir: Path = Path("performance")
    datasets_root: Path | None = None
    datasets_limit: int | None = None
    harness_python: Path = Path(sys.executable)

    @property
    def bearer(self) -> str:
        """What is sent as the key; without one something that a header can carry."""
        return self.api_key or "none"
