"""The arguments that a model's engine is launched with: the one place where they are put together.

The server, the offline engines, vLLM's parser at collection, the comparison of variants and the
document all take them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..observation.numerics import FORCED_TOKENS
from ..platforms.base import Platform
from ..spec.model import RESERVED_SERVE_ARGUMENTS, ModelSpec

# Greedy means greedy: a checkpoint's own generation settings must not reach the sampler. The cache
# criterion needs to see how many tokens were cached, the numerics see logits as they were computed.
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
        deployment: what the model file declares, as the platform can take it.
        suite: what the suite adds to see what it judges.
    """

    deployment: Mapping[str, Any]
    suite: Mapping[str, Any]

    @property
    def all(self) -> dict[str, Any]:
        """What vLLM is given."""
        return {**self.deployment, **self.suite}


def launch_arguments(model: ModelSpec, platform: Platform) -> LaunchArguments:
    """The arguments that a model is launched with on a platform."""
    trust = {"trust_remote_code": True} if model.trust_remote_code else {}
    return LaunchArguments({**platform.serve_arguments(model), **trust}, _SUITE_ARGUMENTS)
