"""The environment variables that only an Ascend NPU's software reads."""

from __future__ import annotations

from collections.abc import Mapping

# Read by CANN, torch-npu, HCCL, ATB and vLLM-Ascend alone.
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
    """The variables of an environment that something else than an Ascend NPU's software reads."""
    return {name: value for name, value in env.items() if not name.startswith(_ASCEND_ONLY)}
