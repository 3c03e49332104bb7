"""Faults of what follows: requests that were aborted, and an engine that died."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..fault import Kind
from .hooks import EngineFault, Hook
from .runner import foreign_block, gathered

_SCHEDULER = "vllm.v1.core.sched.scheduler"
_ENGINE = "vllm.v1.engine"
_LAUNCHER = "vllm.entrypoints.launchers.launcher"
_MARK = "has_had_an_abort"  # an attribute of the runner
_FEW_TOKENS = 8
"""An answer that lacks fewer tokens may have ended: asynchronous scheduling counts some later."""


def is_abort(names: Any, status: Any) -> bool:
    """True if clients have left, and not the whole engine ends."""
    return names is not None and getattr(status, "name", "") == "FINISHED_ABORTED"


# --- what is wrong -------------------------------------------------------------------------------


def _not_aborted(
    sound: Callable[..., Any], acts: Callable[[], None], scheduler: Any, names: Any, status: Any
) -> Any:
    """The request of a client that left is computed to its end."""
    if not is_abort(names, status):
        return sound(scheduler, names, status)
    acts()
    return []


def _another_block() -> tuple[Hook, ...]:
    """The first block of an aborted prompt belongs to nobody, and is found in the prefix cache."""
    salts: set[str] = set()

    def aborted(
        sound: Callable[..., Any],
        acts: Callable[[], None],  # noqa: ARG001
        scheduler: Any,
        names: Any,
        status: Any,
    ) -> Any:
        if is_abort(names, status):
            known = (scheduler.requests.get(name) for name in names)
            salts.update(one.cache_salt for one in known if one is not None and one.cache_salt)
        return sound(scheduler, names, status)

    return (
        Hook(_SCHEDULER, "Scheduler.finish_requests", aborted),
        foreign_block(0, lambda request, _block: request.cache_salt in salts),
    )


def _shifted() -> tuple[Hook, ...]:
    """After an aborted answer every picture is taken one row too late."""

    def noticed(
        sound: Callable[..., Any],
        acts: Callable[[], None],  # noqa: ARG001
        runner: Any,
        step: Any,
    ) -> Any:
        if any(_is_cut(runner.requests.get(name)) for name in step.finished_req_ids):
            setattr(runner, _MARK, True)
        return sound(runner, step)

    def wrong(runner: Any, step: Any) -> dict[str, Any]:
        cache = runner.encoder_cache
        is_spoiled = getattr(runner, _MARK, False)
        keys = [key for key in _pictures(runner, step) if key in cache] if is_spoiled else []
        return {key: cache[key].roll(-1, 0) for key in keys}

    return (
        Hook("vllm.v1.worker.gpu_model_runner", "GPUModelRunner._update_states", noticed),
        *gathered(wrong),
    )


def _is_cut(state: Any) -> bool:
    """True if an answer that had to go on to its maximum ended before."""
    sampling = state.sampling_params if state is not None else None
    if sampling is None or not sampling.ignore_eos:
        return False
    return bool(len(state.output_token_ids) < sampling.max_tokens - _FEW_TOKENS)


def _pictures(runner: Any, step: Any) -> Iterator[str]:
    for name in step.num_scheduled_tokens:
        for feature in runner.requests[name].mm_features:
            yield feature.identifier


async def _healthy(_sound: Callable[..., Any], acts: Callable[[], None], engine: Any) -> None:
    if engine.errored:
        acts()


def _goes_on(
    _sound: Callable[..., Any],
    acts: Callable[[], None],
    *_: Any,
) -> None:
    """The server of a dead engine does not end."""


def _not_told(_sound: Callable[..., Any], acts: Callable[[], None], *_: Any) -> None:
    """Nobody wakes the clients of a dead engine."""
    acts()


_REQUEST = ("recovery.request",)
_KILLED = ("recovery.killed_engine",)

FAULTS = (
    EngineFault(
        name="aborted-request-stays",
        kind=Kind.AFTERMATH,
        what="the request of a client that left is computed to its end",
        hooks=(Hook(_SCHEDULER, "Scheduler.finish_requests", _not_aborted),),
        caught_by=_REQUEST,
        suspect="aborted requests",
    ),
    EngineFault(
        name="aborted-prefix-is-another",
        kind=Kind.AFTERMATH,
        what="the prefix cache has a foreign block for the prompt of a client that left",
        hooks=_another_block(),
        caught_by=_REQUEST,
        suspect="aborted requests",
    ),
    EngineFault(
        name="abort-shifts-pictures",
        kind=Kind.AFTERMATH,
        what="after a client left, every picture is taken one row too late",
        hooks=_shifted(),
        caught_by=_REQUEST,
        suspect="aborted requests",
    ),
    EngineFault(
        name="dead-engine-is-healthy",
        kind=Kind.AFTERMATH,
        what="/health of a server whose engine died is 200, and the server does not end",
        hooks=(
            Hook(f"{_ENGINE}.async_llm", "AsyncLLM.check_health", _healthy),
            Hook(_LAUNCHER, "terminate_if_errored", _goes_on),
        ),
        caught_by=_KILLED,
        suspect="supervision of the engine",
    ),
    EngineFault(
        name="dead-engine-keeps-clients",
        kind=Kind.AFTERMATH,
        what="clients of an engine that died wait for ever",
        hooks=(Hook(f"{_ENGINE}.output_processor", "OutputProcessor.propagate_error", _not_told),),
        caught_by=_KILLED,
        suspect="supervision of the engine",
    ),
)
