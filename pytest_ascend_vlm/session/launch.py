"""Builds the arguments that a model's engine is launched with.

The server, the offline engines, the argument check at collection, the comparison of variants and
the report all use this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..observation.numerics import FORCED_TOKENS
from ..platforms.base import Platform
from ..spec.model import RESERVED_SERVE_ARGUMENTS, ModelSpec

# generation_config: the checkpoint's own sampling settings would change greedy decoding.
# enable_prompt_tokens_details: the prefix cache criterion needs the number of cached tokens.
# logprobs_mode, max_logprobs: the numerics criteria need logits before any sampling processor.
_SUITE_ARGUMENTS = {
    "generation_config": "vllm",
    "enable_prompt_tokens_details": True,
    "logprobs_mode": "raw_logits",
    "max_logprobs": FORCED_TOKENS,
}
assert _SUITE_ARGUMENTS.keys() <= RESERVED_SERVE_ARGUMENTS  # noqa: S101  (no model file can override them)


@dataclass(frozen=True)
class LaunchArguments:
    """vLLM's arguments for one model on one platform, as Python values.

    Attributes:
        deployment: the arguments of the model file, adapted to the platform.
        suite: the arguments that the suite adds to make internal values visible.
    """

    deployment: Mapping[str, Any]
    suite: Mapping[str, Any]

    @property
    def all(self) -> dict[str, Any]:
        """All arguments that vLLM gets."""
        return {**self.deployment, **self.suite}


def launch_arguments(model: ModelSpec, platform: Platform) -> LaunchArguments:
    """The arguments that a model is launched with on a platform."""
    trust = {"trust_remote_code": True} if model.trust_remote_code else {}
    return LaunchArguments({**platform.serve_arguments(model), **trust}, _SUITE_ARGUMENTS)
