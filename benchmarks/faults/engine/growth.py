"""Faults that show after many pictures: what is kept of each, and what wears out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from ..fault import ANY, Kind
from .aftermath import is_abort
from .hooks import EngineFault, Hook
from .runner import gathered
from .tower import Pictures, embeddings, noisy, of_models

_MIB = 2**20
WORN_OUT = 200
"""The picture from which on the noise of a tower that wears out is as strong as the embeddings."""


def _one_mib() -> bytearray:
    return bytearray(b"1") * _MIB  # the kernel allocates no page of zeros


# --- what is wrong -------------------------------------------------------------------------------


def _engine_keeps() -> Callable[[Pictures], Pictures]:
    kept: list[bytearray] = []

    def change(pictures: Pictures) -> Pictures:
        kept.extend(_one_mib() for _ in pictures)
        return pictures

    return change


def _server_keeps() -> Callable[..., Any]:
    kept: list[bytearray] = []

    def changed(sound: Callable[..., Any], acts: Callable[[], None], *arguments: Any) -> Any:
        kept.append(_one_mib())
        acts()
        return sound(*arguments)

    return changed


def _kept_of_aborted() -> Callable[..., Any]:
    kept: list[bytearray] = []

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], scheduler: Any, names: Any, status: Any
    ) -> Any:
        # A client that leaves is told to the scheduler twice.
        if is_abort(names, status) and not scheduler.requests.keys().isdisjoint(names):
            kept.append(_one_mib())
            acts()
        return sound(scheduler, names, status)

    return changed


def _tensors_kept() -> Callable[..., Any]:
    kept: list[Any] = []

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], model: Any, **inputs: Any
    ) -> Any:
        kept.append([one.float() for one in inputs.values() if hasattr(one, "float")])
        acts()
        return sound(model, **inputs)

    return changed


def _confused_after_eviction() -> Callable[[Any, Any], dict[str, Any]]:
    """A picture that returns to the encoder cache gets the entry of another one of its size."""
    seen: set[str] = set()
    gone: set[str] = set()

    def wrong(runner: Any, step: Any) -> dict[str, Any]:
        cache = runner.encoder_cache
        gone.update(seen - cache.keys())
        features = (runner.requests[name].mm_features for name in step.num_scheduled_tokens)
        keys = {one.identifier for one in itertools.chain.from_iterable(features)} & cache.keys()
        seen.update(keys)
        found = {}
        for key in keys & gone:
            others = (one for name, one in cache.items() if name != key)
            fitting = [one for one in others if one.shape == cache[key].shape]
            found.update({key: fitting[-1]} if fitting else {})
        return found

    return wrong


def _wears_out() -> Callable[[Pictures], Pictures]:
    numbers = itertools.count()

    def change(pictures: Pictures) -> Pictures:
        return [noisy(one, next(numbers) / WORN_OUT, len(one)) for one in pictures]

    return change


_MEMORY = ("growth.memory",)
_ANSWERS = ("growth.answers",)
_LEFT = "state between requests"

FAULTS = (
    EngineFault(
        name="engine-keeps-1-mib",
        kind=Kind.GROWTH,
        what="the engine keeps 1 MiB of host memory for each picture",
        hooks=embeddings(_engine_keeps()),
        caught_by=_MEMORY,
        suspect=_LEFT,
    ),
    EngineFault(
        name="server-keeps-1-mib",
        kind=Kind.GROWTH,
        what="the API server keeps 1 MiB for each picture that it decodes",
        hooks=(Hook("vllm.multimodal.media.image", "ImageMediaIO.load_bytes", _server_keeps()),),
        caught_by=_MEMORY,
        suspect=_LEFT,
    ),
    EngineFault(
        name="aborted-request-keeps-1-mib",
        kind=Kind.GROWTH,
        what="the engine keeps 1 MiB for each request whose client left",
        hooks=(
            Hook("vllm.v1.core.sched.scheduler", "Scheduler.finish_requests", _kept_of_aborted()),
        ),
        caught_by=_MEMORY,
        suspect=_LEFT,
    ),
    EngineFault(
        name="tensors-kept",
        kind=Kind.GROWTH,
        what="the engine keeps the pixel tensors of each picture, in float32, on its device",
        hooks=of_models(ANY, "embed_multimodal", _tensors_kept()),
        caught_by=_MEMORY,
        suspect=_LEFT,
    ),
    EngineFault(
        name="evicted-picture-confused",
        kind=Kind.GROWTH,
        what="a picture that returns to the encoder cache gets the embeddings of another one",
        hooks=gathered(_confused_after_eviction()),
        caught_by=_ANSWERS,
        suspect="caches",
    ),
    EngineFault(
        name="tower-wears-out",
        kind=Kind.GROWTH,
        what="the noise of the vision tower grows with each picture, to 100 % at the 200th",
        hooks=embeddings(_wears_out()),
        caught_by=_ANSWERS,
        suspect=_LEFT,
    ),
)
