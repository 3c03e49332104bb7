"""Faults of the sampler: what the penalties take for prompt and answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..fault import Kind
from .hooks import EngineFault, Hook

_PENALTIES = "vllm.v1.sample.ops.penalties"


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
)
