"""Faults of the sampler: what penalties count, and what reaches other requests of the batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ..fault import Kind
from .hooks import EngineFault, Hook

_PENALTIES = "vllm.v1.sample.ops.penalties"
_WARM = 0.7


def _without_prompt(
    sound: Callable[..., Any], acts: Callable[[], None], logits: Any, prompt: Any, *more: Any
) -> Any:
    """Pads the whole prompt, so that no token of it counts."""
    acts()
    return sound(logits, prompt.new_full(prompt.shape, logits.shape[1]), *more)


def _late(
    sound: Callable[..., Any], acts: Callable[[], None], logits: Any, prompt: Any, *more: Any
) -> Any:
    """Counts an answer's tokens without the latest four."""
    acts()
    *penalties, answers = more
    return sound(logits, prompt, *penalties, [ids[:-4] for ids in answers])


def _on_the_next_row(
    sound: Callable[..., Any], acts: Callable[[], None], processor: Any, logits: Any
) -> Any:
    """The biases of a request reach the next one of the batch, too."""
    if processor.biases and len(logits) > 1:
        acts()
        rows, tokens = processor.logits_slice
        logits[(rows + 1) % len(logits), tokens] += processor.bias_tensor
    return sound(processor, logits)


def _all_sampled(
    sound: Callable[..., Any],
    acts: Callable[[], None],
    sampler: Any,
    logits: Any,
    batch: Any,
    *more: Any,
    **named: Any,
) -> Any:
    """In a batch with a request that is sampled, the greedy ones are sampled, too."""
    if not batch.all_greedy and not batch.all_random:
        acts()
        warm = batch.temperature.clamp(min=_WARM)
        batch = dataclasses.replace(batch, temperature=warm, all_random=True)
    return sound(sampler, logits, batch, *more, **named)


FAULTS = (
    EngineFault(
        name="repetition-penalty-without-prompt",
        kind=Kind.PARAMETERS,
        what="the repetition penalty counts no token of the prompt",
        hooks=(Hook(_PENALTIES, "apply_all_penalties", _without_prompt),),
        caught_by=("parameters.choice",),
        suspect="parameters",
    ),
    EngineFault(
        name="penalties-count-late",
        kind=Kind.PARAMETERS,
        what="the penalties do not count the latest four tokens",
        hooks=(Hook(_PENALTIES, "apply_all_penalties", _late),),
        caught_by=("parameters.choice",),
        suspect="parameters",
    ),
    EngineFault(
        name="biases-reach-the-next-row",
        kind=Kind.PARAMETERS,
        what="the logit biases of a request reach the next request of the batch, too",
        hooks=(
            Hook(
                "vllm.v1.sample.logits_processor.builtin",
                "LogitBiasLogitsProcessor.apply",
                _on_the_next_row,
            ),
        ),
        caught_by=("parameters.together",),
        suspect="parameters",
    ),
    EngineFault(
        name="one-sampled-all-sampled",
        kind=Kind.PARAMETERS,
        what="in a batch with a request that is sampled, the greedy ones are sampled, too",
        hooks=(Hook("vllm.v1.sample.sampler", "Sampler.sample", _all_sampled),),
        caught_by=("parameters.together",),
        suspect="parameters",
    ),
)
