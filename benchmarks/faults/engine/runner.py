"""Faults of the model runner: positions, the KV cache, and pictures across borders of steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..fault import SEVERAL_PICTURES, SEVERAL_WITH_MROPE, WITH_MROPE, Kind
from .hooks import Change, EngineFault, Hook
from .tower import of_models

_RUNNER = "vllm.v1.worker.gpu_model_runner"
LONG_ANSWER = 512


@contextmanager
def _replaced(cache: dict[str, Any], wrong: Mapping[str, Any]) -> Iterator[None]:
    """Replaces the embeddings of some pictures for the duration of the context."""
    right = {key: cache[key] for key in wrong}
    cache.update(wrong)
    try:
        yield
    finally:
        cache.update(right)


def gathered(wrong: Callable[[Any, Any], Mapping[str, Any]]) -> tuple[Hook, ...]:
    """Hooks that change which embeddings a step takes from the encoder cache.

    Args:
        wrong: from the runner and the step to key -> embeddings of the pictures to change.
    """

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], runner: Any, step: Any, *more: Any
    ) -> Any:
        replaced = wrong(runner, step)
        if replaced:
            acts()
        with _replaced(runner.encoder_cache, replaced):
            return sound(runner, step, *more)

    return (Hook(_RUNNER, "GPUModelRunner._gather_mm_embeddings", changed),)


def _pictures_of_a_request(runner: Any, step: Any) -> Iterator[list[str]]:
    """The keys of the pictures of each request that are all in this step, if there are several."""
    for name, tokens in step.num_scheduled_tokens.items():
        state = runner.requests[name]
        seen = range(state.num_computed_tokens, state.num_computed_tokens + tokens)
        keys = [
            feature.identifier
            for feature in state.mm_features
            if feature.mm_position.offset in seen
            and feature.mm_position.offset + feature.mm_position.length - 1 in seen
        ]
        if len(set(keys)) > 1:
            yield keys


def _cut_pictures(runner: Any, step: Any, *, is_first_step: bool) -> Iterator[str]:
    """The keys of the pictures of which an earlier step, or the prefix cache, has the beginning."""
    new = {request.req_id for request in step.scheduled_new_reqs}
    for name in step.num_scheduled_tokens:
        state = runner.requests[name]
        if (name in new) is not is_first_step:
            continue
        for feature in state.mm_features:
            place = feature.mm_position
            if place.offset < state.num_computed_tokens < place.offset + place.length:
                yield feature.identifier


# --- what is wrong -------------------------------------------------------------------------------


def _exchanged(runner: Any, step: Any) -> dict[str, Any]:
    """The pictures of a request in reverse order, cut where the pictures in order are cut."""
    import torch

    wrong: dict[str, Any] = {}
    for keys in _pictures_of_a_request(runner, step):
        right = [runner.encoder_cache[key] for key in keys]
        rows = torch.cat(right[::-1]).split([len(one) for one in right])
        wrong.update(zip(keys, rows, strict=True))
    return wrong


def _first_for_all(runner: Any, step: Any) -> dict[str, Any]:
    wrong: dict[str, Any] = {}
    for keys in _pictures_of_a_request(runner, step):
        first = runner.encoder_cache[keys[0]]
        for key in keys[1:]:
            rows = len(runner.encoder_cache[key])
            wrong[key] = first[[row % len(first) for row in range(rows)]]
    return wrong


def _next_rows(*, is_first_step: bool) -> Callable[[Any, Any], dict[str, Any]]:
    def wrong(runner: Any, step: Any) -> dict[str, Any]:
        keys = _cut_pictures(runner, step, is_first_step=is_first_step)
        return {key: runner.encoder_cache[key].roll(-1, 0) for key in keys}

    return wrong


def _blank_rest(runner: Any, step: Any) -> dict[str, Any]:
    import torch

    keys = _cut_pictures(runner, step, is_first_step=False)
    return {key: torch.zeros_like(runner.encoder_cache[key]) for key in keys}


def _blank_after_preemption(runner: Any, step: Any) -> dict[str, Any]:
    """Blank pictures for the requests that are computed again."""
    import torch

    preempted = vars(runner).setdefault("preempted", set())
    preempted |= set(step.scheduled_cached_reqs.resumed_req_ids)
    keys = {
        feature.identifier
        for name in preempted & step.num_scheduled_tokens.keys()
        for feature in runner.requests[name].mm_features
    }
    cache = runner.encoder_cache
    return {key: torch.zeros_like(cache[key]) for key in keys if key in cache}


def _second_from_zero(
    sound: Callable[..., Any], acts: Callable[[], None], model: Any, tokens: Any, features: Any
) -> Any:
    """The positions of every picture but the first begin at zero."""
    positions, delta = sound(model, tokens, features)
    places = [feature.mm_position for feature in features if feature.modality == "image"]
    for place in sorted(places, key=lambda place: place.offset)[1:]:
        acts()
        rows = positions[:, place.offset : place.offset + place.length]
        rows -= rows.min()
    return positions, delta


def _later_chunk_one_further(
    sound: Callable[..., Any], acts: Callable[[], None], runner: Any, step: Any
) -> Any:
    """Adds one to the positions of every chunk of a prompt but the first."""
    sound(runner, step)
    new = {request.req_id for request in step.scheduled_new_reqs}
    start = 0
    for name in runner.input_batch.req_ids:
        state, end = runner.requests[name], start + step.num_scheduled_tokens[name]
        if name not in new and state.num_computed_tokens < len(state.prompt_token_ids):
            acts()
            runner.mrope_positions.cpu[:, start:end] += 1
        start = end


def _positions_end(
    sound: Callable[..., Any],
    acts: Callable[[], None],
    out: Any,
    out_offset: int,
    **place: int,
) -> None:
    """The positions of an answer stop growing at `LONG_ANSWER`."""
    sound(out, out_offset, **place)
    values = out[:, out_offset : out_offset + place["num_new_tokens"]]
    if values.max() >= LONG_ANSWER:
        acts()
        values.clip(max=LONG_ANSWER - 1, out=values)


def _first_slot_lost(*, in_answers_only: bool) -> Change:
    """Writes the first token of a block over the last one of the block before."""

    def changed(
        sound: Callable[..., Any], acts: Callable[[], None], table: Any, *step: Any
    ) -> None:
        sound(table, *step)
        requests, starts, positions = step
        size = table.block_size
        borders = starts[: requests + 1].tolist()
        for request, (start, end) in enumerate(itertools.pairwise(borders)):
            if in_answers_only and end - start > 1:
                continue
            for token in ((positions[start:end] % size == 0).nonzero()[:, 0] + start).tolist():
                position = int(positions[token])
                if position:
                    acts()
                    block = int(table.block_table.gpu[request, position // size - 1])
                    table.slot_mapping.gpu[token] = block * size + size - 1

    return changed


def _kv_cache(*, in_answers_only: bool) -> tuple[Hook, ...]:
    change = _first_slot_lost(in_answers_only=in_answers_only)
    return (Hook("vllm.v1.worker.block_table", "BlockTable.compute_slot_mapping", change),)


def foreign_block(place: int, is_wrong: Callable[[Any, Any], bool]) -> Hook:
    """A hook that puts a foreign block into hits in the prefix cache.

    Args:
        place: the index of the block in a hit.
        is_wrong: from a request and the block at that place to True if a foreign one is found.
    """

    def found(
        sound: Callable[..., Any], acts: Callable[[], None], manager: Any, request: Any
    ) -> Any:
        blocks, hits, *more = sound(manager, request)
        groups = [list(group) for group in blocks.blocks]
        if not hits or not any(is_wrong(request, group[place]) for group in groups if group):
            return blocks, hits, *more
        acts()
        foreign = manager.block_pool.blocks[-1]
        foreign.ref_cnt = max(foreign.ref_cnt, 1)  # it is never free, so nobody writes into it
        for group in filter(None, groups):
            group[place] = foreign
        return type(blocks)(tuple(groups)), hits, *more

    return Hook("vllm.v1.core.kv_cache_manager", "KVCacheManager.get_computed_blocks", found)


def _foreign_written_block() -> tuple[Hook, ...]:
    """A hit that ends in a block of an answer finds a foreign block there."""
    written: set[int] = set()

    def filled(
        sound: Callable[..., Any],
        acts: Callable[[], None],  # noqa: ARG001
        pool: Any,
        **block: Any,
    ) -> Any:
        for number in range(block["num_cached_blocks"], block["num_full_blocks"]):
            is_of_prompt = (number + 1) * block["block_size"] <= block["request"].num_prompt_tokens
            (written.discard if is_of_prompt else written.add)(block["blocks"][number].block_id)
        return sound(pool, **block)

    return (
        Hook("vllm.v1.core.block_pool", "BlockPool.cache_full_blocks", filled),
        foreign_block(-1, lambda _request, block: block.block_id in written),
    )


_BORDERS = ("numerics.borders",)

FAULTS = (
    EngineFault(
        name="pictures-exchanged-in-prompt",
        kind=Kind.WHICH,
        what="the embeddings of a request's pictures are put into the prompt in reverse order",
        hooks=gathered(_exchanged),
        caught_by=("baseline.order",),
        suspect="places of images",
        models=SEVERAL_PICTURES,
    ),
    EngineFault(
        name="first-picture-for-the-request",
        kind=Kind.WHICH,
        what="all pictures of a request get the embeddings of its first one",
        hooks=gathered(_first_for_all),
        caught_by=("baseline.order", "numerics.images"),
        suspect="places of images",
        models=SEVERAL_PICTURES,
    ),
    EngineFault(
        name="second-picture-at-position-zero",
        kind=Kind.WHICH,
        what="the mRoPE positions of every picture but a request's first begin at zero",
        hooks=of_models(SEVERAL_WITH_MROPE, "get_mrope_input_positions", _second_from_zero),
        caught_by=("numerics.images",),
        suspect="places of images",
        models=SEVERAL_WITH_MROPE,
    ),
    EngineFault(
        name="chunk-shifts-picture",
        kind=Kind.BORDERS,
        what="a step that begins inside a picture takes its embeddings one row too late",
        hooks=gathered(_next_rows(is_first_step=False)),
        caught_by=_BORDERS,
        suspect="steps of a prompt",
    ),
    EngineFault(
        name="chunk-loses-picture",
        kind=Kind.BORDERS,
        what="what is left of a picture behind the border of a step is blank",
        hooks=gathered(_blank_rest),
        caught_by=_BORDERS,
        suspect="steps of a prompt",
    ),
    EngineFault(
        name="prefix-hit-shifts-picture",
        kind=Kind.BORDERS,
        what="a prefix cache hit that ends inside a picture takes the rest one row too late",
        hooks=gathered(_next_rows(is_first_step=True)),
        caught_by=_BORDERS,
        suspect="caches",
    ),
    EngineFault(
        name="chunk-shifts-positions",
        kind=Kind.BORDERS,
        what="the mRoPE positions of every chunk of a prompt but the first are one too large",
        hooks=(Hook(_RUNNER, "GPUModelRunner._calc_mrope_positions", _later_chunk_one_further),),
        caught_by=_BORDERS,
        suspect="steps of a prompt",
        models=WITH_MROPE,
    ),
    EngineFault(
        name="kv-block-border",
        kind=Kind.BORDERS,
        what="the first token of a block of the KV cache is written over the one before",
        hooks=_kv_cache(in_answers_only=False),
        caught_by=("baseline.logprobs", "numerics.logits"),
        suspect="decode path",
    ),
    EngineFault(
        name="kv-block-border-in-answers",
        kind=Kind.BORDERS,
        what="the first token of a KV cache block is written over the one before, in answers only",
        hooks=_kv_cache(in_answers_only=True),
        caught_by=("baseline.image", "baseline.divergence"),
        suspect="decode path",
    ),
    EngineFault(
        name="positions-end-at-512",
        kind=Kind.BORDERS,
        what="the mRoPE positions of an answer stop growing at 512",
        hooks=(
            Hook(
                "vllm.model_executor.layers.rotary_embedding.mrope",
                "MRotaryEmbedding.get_next_input_positions_tensor",
                _positions_end,
            ),
        ),
        caught_by=("numerics.long_answer",),
        suspect="decode path",
        models=WITH_MROPE,
    ),
    EngineFault(
        name="written-block-is-foreign",
        kind=Kind.BORDERS,
        what="a hit that ends in a block of an answer finds a foreign block there",
        hooks=_foreign_written_block(),
        caught_by=("determinism.next_turn",),
        suspect="caches",
    ),
    EngineFault(
        name="preempted-picture-blank",
        kind=Kind.LOAD,
        what="the pictures of a request that was preempted are blank when it is computed again",
        hooks=gathered(_blank_after_preemption),
        caught_by=("determinism.preemption",),
        suspect="preempted requests",
    ),
)
