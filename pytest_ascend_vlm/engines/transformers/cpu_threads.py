"""The CPU that the reference runs on: the threads it computes with, and its speed in bf16."""

from __future__ import annotations

import os
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

_BYTES_A_THREAD = 64 * 1024**2
_SIDE = 512
_SAMPLE_SECONDS = 0.05
_SLOW = 0.5
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def use_cores(weights_bytes: int) -> None:
    """Makes PyTorch compute with as many threads as a model's weights keep busy.

    That is one on each physical core that this process may use, because two threads of one core
    share its multipliers and only wait for each other; but fewer for a small model, whose threads
    wait for each other longer than they compute (a tiny checkpoint: 4 ms a token with one thread,
    70 ms with two on busy cores). Where OMP_NUM_THREADS is set, someone has decided otherwise.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(physical_cores(), max(1, weights_bytes // _BYTES_A_THREAD)))


def physical_cores() -> int:
    """Number of physical cores that this process may use."""
    if sys.platform != "linux":
        return psutil.cpu_count(logical=False) or 1
    allowed = os.sched_getaffinity(0)
    try:
        return len({Path(_SIBLINGS.format(cpu)).read_text("ascii") for cpu in allowed})
    except OSError:  # a sandbox may hide /sys
        return min(len(allowed), psutil.cpu_count(logical=False) or len(allowed))


@lru_cache(maxsize=1)
def bf16_speed() -> float:
    """Speed of a matrix product in bf16 on this CPU, in units of its speed in fp32.

    Metric once a process: it takes 0.1 s, a second where bf16 is emulated badly.
    """
    import torch

    exact, rounded = (
        _product_seconds(torch.ones(_SIDE, _SIDE, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    )
    return exact / rounded


def bf16_speed_text(speed: float) -> str:
    """What a speed of bf16, in units of fp32's, means for whoever waits."""
    words = f"bf16 at {speed:{'.0f' if speed > 10 else '.2g'}} x the speed of fp32"
    if speed >= _SLOW:
        return words
    return f"{words}: slow, a CPU with bf16 instructions (avx512_bf16, amx_bf16, Arm bf16) is not"


def _product_seconds(matrix: Any) -> float:
    """Seconds of the fastest of some products of a square matrix with itself."""
    _ = matrix @ matrix  # the first one also compiles the kernel
    fastest, until = float("inf"), time.perf_counter() + _SAMPLE_SECONDS
    while (start := time.perf_counter()) < until:
        _ = matrix @ matrix
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
