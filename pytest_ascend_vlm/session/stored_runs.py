"""Finds the stored performance runs that a run of one model is compared with."""

from __future__ import annotations

from typing import Any

from ..criteria import performance as rules
from ..golden import performance_runs
from ..golden.digests import file_digest, json_digest
from ..golden.performance_runs import StoredRuns
from ..spec.case import Case
from ..spec.thresholds import PAIRS, ROUNDS, SERVICE_LEVEL, WARMUPS
from .device_slot import DeviceSlot
from .request_timing import timed_cases


def stored_runs(slot: DeviceSlot, measurements: tuple[str, ...], how: list[float]) -> StoredRuns:
    """The stored runs with the same key: model, device, versions, serve command and workload.

    Args:
        slot: the model and its server.
        measurements: names of the measurements of this run.
        how: further constants that the figures depend on.
    """
    session, run = slot.session, slot.session.run
    cases = [_described(case) for kind in rules.KINDS for case in timed_cases(session, kind)]
    workloads = [repr(workload) for workload in session.model.workloads]
    settings = [ROUNDS, PAIRS, WARMUPS, SERVICE_LEVEL, *how]
    key = {
        "model": session.model.model_id,
        "weights_sha256": session.golden_key.weights_sha256,
        "device": run.platform.device(),
        "versions": dict(run.platform.versions()),
        "serve_command": slot.server.serve_command if slot.server else "",
        "env": dict(session.model.env),
        "workload": json_digest([cases, measurements, workloads, settings, run.options.requests]),
    }
    return performance_runs.load(run.options.performance_dir, session.model.slug, key)


def _described(case: Case) -> list[Any]:
    """The properties of a case that its latency depends on."""
    images = [file_digest(path) for path in case.images]
    return [case.id, case.prompt, case.max_tokens, images]
