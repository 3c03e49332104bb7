"""How the installed vLLM is asked for the last hidden state of each token, unchanged.

The names have changed between 0.11 and 0.32. Which ones hold is told by the fields and tasks that
the installed vLLM has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TASK = "token_embed"


@dataclass(frozen=True)
class TokenPooling:
    """The names of one release.

    Attributes:
        task: the pooling task of a request.
        engine: the arguments of the engine.
    """

    task: str
    engine: Mapping[str, Any]


def token_pooling() -> TokenPooling:
    """The names that the installed vLLM understands."""
    from vllm.config import PoolerConfig
    from vllm.tasks import POOLING_TASKS

    runner = {"runner": "pooling", "convert": "embed", "enable_prefix_caching": False}
    if _TASK not in POOLING_TASKS:
        # vLLM 0.11. It pools tokens only if every prompt is computed in one piece.
        config = PoolerConfig(softmax=False)
        whole = {"enable_chunked_prefill": False, "pooler_config": config}
        return TokenPooling("encode", {**runner, **whole})
    config = PoolerConfig(**_unchanged({field.name for field in dataclasses.fields(PoolerConfig)}))
    return TokenPooling(_TASK, {**runner, "pooler_config": config})


def _unchanged(fields: set[str]) -> dict[str, Any]:
    """Switches off what the pooler would do to a hidden state.

    vLLM 0.13 has `use_activation` too, but heeds it only for classification.
    """
    off = {"normalize" if "normalize" in fields else "use_activation": False}
    return {**off, **({"task": _TASK} if "task" in fields else {})}
