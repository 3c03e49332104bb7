"""Measures a model's offline engine under the workloads that a model file declares for it."""

from __future__ import annotations

from ..load import offline
from ..observation.offline_load import OfflineLoad
from ..spec.thresholds import WARMUPS
from ..spec.workload import Workload
from .device_slot import DeviceSlot


def warmup_batches(workload: Workload) -> int:
    """Number of batches before the measured ones; `vllm bench throughput` knows no warm-up."""
    return WARMUPS if workload.tool == "latency" else 0


def offline_load(slot: DeviceSlot, workload: Workload) -> OfflineLoad:
    """Measures a workload on the devices of a model, after stopping the model's own server.

    The engine has the arguments of the deployment, without those that the suite adds.

    Raises:
        PreconditionError: the installed vLLM does not have the tool.
        ServerError: the tool fails or exceeds its time.
    """
    slot.release_server()
    session = slot.session
    model, run = session.model, session.run
    engine = offline.Engine(
        session.checkpoint.path,
        model.model_id,
        session.arguments.deployment,
        {**run.platform.environment(model), **slot.allocation.env},
        model.budgets.whole_start,
    )
    directory = run.logs.directory / f"{slot.label}-load" / workload.log_name
    on_progress = run.progress(f"load {workload.log_name}")
    return offline.measure(workload, warmup_batches(workload), engine, directory, on_progress)
