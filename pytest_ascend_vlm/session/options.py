"""The options of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spec.thresholds import PICTURES, SOAK_IMAGES

if TYPE_CHECKING:
    from ..gate import Pair


@dataclass(frozen=True)
class Options:
    """The options of a run.

    Attributes:
        platform: name of the platform ("npu", "cpu", ...); "endpoint" if a URL was given.
        checkpoint: "full" or "tiny".
        log_dir: directory of the logs of all runs, and of interrupted work that a later run
            continues.
        ray: address of the Ray cluster that judges the models, or None.
        ray_mixed: True if the hosts of the cluster may have different versions.
        record: True if goldens are written instead of judging.
        required: the pairs that a gate requires; None if the run is no gate.
        server_url: URL of an endpoint that already runs, or None.
        served_name: the model name in requests to `server_url`; None to ask the server.
        server_wait: seconds to wait for an endpoint that is still starting.
        server_device: the device of `server_url` as the caller states it, or None.
        api_key: API key of the endpoints, from the environment, or None. Never printed.
        weights_root: directory of the full checkpoints; None for the hubs' caches.
        weights: model's id -> directory of its full checkpoint, for models that have their own.
        serve_overrides: serve arguments in the place of the model files'.
        report: directory to write the report to, or None.
        append_report: True if the report is merged with the one that is in that directory.
        resume: the report of an earlier run whose verdicts are taken over, or None.
        fixture_roots: directories that are searched for cases and tiny checkpoints.
        golden_roots: directories that are searched for goldens.
        golden_dir: the project's golden directory; goldens are written there.
        compare_url: URL of an endpoint to compare the speed with, or None.
        examples: number of generated pictures of serving.image_sizes; six times the number of
            generated sequences of serving.any_request.
        requests: number of requests at each concurrency level.
        soak: number of images in growth.*.
        save_performance: True if measured figures are stored instead of compared.
        performance_dir: directory of the stored figures.
        datasets_root: directory of the data sets, `<organisation>/<name>` as on the hub, or None.
        datasets_limit: number of questions to evaluate of each subset; None for all.
        harness_python: Python interpreter that has the evaluation harnesses installed.
    """

    platform: str
    checkpoint: str
    log_dir: Path
    ray: str | None = None
    ray_mixed: bool = False
    record: bool = False
    required: list[Pair] | None = None
    server_url: str | None = None
    served_name: str | None = None
    server_wait: float = 0.0
    server_device: str | None = None
    api_key: str | None = field(default=None, repr=False)
    weights_root: Path | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)
    serve_overrides: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None
    append_report: bool = False
    resume: Path | None = None
    fixture_roots: tuple[Path, ...] = ()
    golden_roots: tuple[Path, ...] = ()
    golden_dir: Path = Path("golden")
    compare_url: str | None = None
    examples: int = PICTURES
    requests: int = 32
    soak: int = SOAK_IMAGES
    save_performance: bool = False
    performance_dir: Path = Path("performance")
    datasets_root: Path | None = None
    datasets_limit: int | None = None
    harness_python: Path = Path(sys.executable)

    @property
    def bearer(self) -> str:
        """The API key to send; a placeholder if there is none, because the header needs a value."""
        return self.api_key or "none"
