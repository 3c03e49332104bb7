"""The CPU that runs the reference: its number of threads, and its speed in bf16."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from ...platforms.cores import physical_cores

_BYTES_PER_THREAD = 64 * 1024**2
_SIDE = 512
_SAMPLE_SECONDS = 0.05
_SLOW = 0.5


def use_cores(weights_bytes: int) -> None:
    """Sets the number of PyTorch's threads for a model of this size.

    One thread per physical core that this process may use: two threads of one core share its
    multipliers and are not faster. Fewer for a small model, whose threads spend more time on
    synchronization than on computation (a tiny checkpoint takes 4 ms per token with one thread,
    70 ms with two on busy cores). OMP_NUM_THREADS does not count: vllm-ascend's images set it to 1
    for servers, whose CPU only dispatches. A recording would take as many times longer as there are
    cores.
    """
    import torch

    torch.set_num_threads(min(physical_cores(), max(1, weights_bytes // _BYTES_PER_THREAD)))


@lru_cache(maxsize=1)
def bf16_speed() -> float:
    """Speed of a bf16 matrix product on this CPU, divided by its speed in fp32.

    Measured once per process. That takes 0.1 s, or about 1 s if bf16 is emulated slowly.
    """
    import torch

    fp32, bf16 = (
        _product_seconds(torch.ones(_SIDE, _SIDE, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    )
    return fp32 / bf16


def bf16_speed_text(speed: float) -> str:
    """Describes the speed of bf16 relative to fp32, and warns if it is slow."""
    text = f"bf16 at {speed:{'.0f' if speed > 10 else '.2g'}} x the speed of fp32"
    if speed >= _SLOW:
        return text
    return (
        f"{text}: slow, but faster on a CPU with bf16 instructions "
        "(avx512_bf16, amx_bf16, Arm bf16)"
    )


def _product_seconds(matrix: Any) -> float:
    """Seconds of the fastest of several products of a square matrix with itself."""
    _ = matrix @ matrix  # the first product also compiles the kernel
    fastest, until = float("inf"), time.perf_counter() + _SAMPLE_SECONDS
    while (start := time.perf_counter()) < until:
        _ = matrix @ matrix
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
