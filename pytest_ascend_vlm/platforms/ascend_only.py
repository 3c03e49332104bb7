"""Removes the environment variables that only Ascend software reads."""

from __future__ import annotations

from collections.abc import Mapping

# Prefixes of the variables that only CANN, torch-npu, HCCL, ATB or vLLM-Ascend read.
_ASCEND_ONLY = (
    "ACL_",
    "ASCEND_",
    "ATB_",
    "CLOSE_MATMUL_K_SHIFT",
    "COMBINED_ENABLE",
    "CPU_AFFINITY_CONF",
    "HCCL_",
    "HCCN_",
    "INF_NAN_MODE_",
    "LCCL_",
    "MULTI_STREAM_MEMORY_REUSE",
    "NPU_",
    "PYTORCH_NPU_",
    "TASK_QUEUE_ENABLE",
    "VLLM_ASCEND_",
)


def without_ascend_only(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that only Ascend software reads."""
    return {name: value for name, value in env.items() if not name.startswith(_ASCEND_ONLY)}
