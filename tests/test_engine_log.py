"""What a server's log says about memory, in the words of each version of vLLM and vllm-ascend."""

from __future__ import annotations

import pytest

from pytest_ascend_vlm.engines.vllm.log import (
    Phase,
    architecture_of,
    memory_of,
    milestones_of,
    phase_of,
)
from pytest_ascend_vlm.observation.memory import EngineMemory

CPU_032 = """
(Worker pid=1) INFO 11-26 11:08:49 [cpu_model_runner.py:68] Starting to load model /m...
(Worker pid=1) INFO 11-26 11:08:49 [weight_utils.py:1108] Filesystem type for checkpoints: EXT4. \
Checkpoint size: 0.00 GiB. Available RAM: 19.41 GiB.
(Worker pid=1) INFO 11-26 11:08:49 [default_loader.py:501] Loading weights took 0.01 seconds
(Worker pid=1) INFO 11-26 11:08:50 [cpu_worker.py:260] Explicitly set (1.0/23.54) GiB for KV cache \
on node 0.
(EngineCore pid=2) INFO 11-26 11:08:50 [kv_cache_utils.py:2327] CPU KV cache size: 1,048,576 \
tokens, Maximum concurrency for 16,384 tokens per request: 64.00x
"""
CPU_011 = """
INFO [cpu_model_runner.py:106] Starting to load model /m...
INFO [default_loader.py:267] Loading weights took 0.02 seconds
INFO [kv_cache_utils.py:1087] GPU KV cache size: 524,288 tokens
INFO [kv_cache_utils.py:1091] Maximum concurrency for 8,192 tokens per request: 64.00x
"""
CUDA_011 = """
INFO [default_loader.py:267] Loading weights took 1.46 seconds
INFO [gpu_model_runner.py:2653] Model loading took 2.1563 GiB and 2.010000 seconds
INFO [gpu_worker.py:298] Available KV cache memory: 50.25 GiB
INFO [kv_cache_utils.py:1087] GPU KV cache size: 4,390,912 tokens
"""
CUDA_032 = """
(Worker_TP0 pid=1) INFO [default_loader.py:501] Loading weights took 1.46 seconds
(Worker_TP0 pid=1) INFO [gpu_model_runner.py:5150] Model loading took 2.16 GiB memory and 2.010000 \
seconds
(Worker_TP0 pid=1) INFO [gpu_worker.py:760] Available KV cache memory: 50.25 GiB
(Worker_TP1 pid=2) INFO [gpu_worker.py:760] Available KV cache memory: 50.11 GiB
(EngineCore pid=3) INFO [kv_cache_utils.py:2327] GPU KV cache size: 4,390,912 tokens, Maximum \
concurrency for 16,384 tokens per request: 268.00x
"""
ASCEND_013 = """
INFO [default_loader.py:308] Loading weights took 1.46 seconds
INFO [model_runner_v1.py:2395] Loading model weights took 2.1563 GB
INFO [worker.py:308] Available memory: 53955526656, total memory: 65452113920
INFO [kv_cache_utils.py:1291] GPU KV cache size: 4,390,912 tokens
"""
ASCEND_018 = """
INFO [default_loader.py:384] Loading weights took 1.46 seconds
INFO [model_runner_v1.py:2592] Loading model weights took 2.1563 GB
INFO [worker.py:357] Available KV cache memory: 50.25 GiB
INFO [kv_cache_utils.py:1316] GPU KV cache size: 4,390,912 tokens
"""


@pytest.mark.parametrize(
    ("log", "memory"),
    [
        (CPU_032, EngineMemory(None, 0.01, 1.0, 1048576)),
        (CPU_011, EngineMemory(None, 0.02, None, 524288)),
        (CUDA_011, EngineMemory(2.1563, 1.46, 50.25, 4390912)),
        (CUDA_032, EngineMemory(2.16, 1.46, 50.25, 4390912)),
        (ASCEND_013, EngineMemory(2.1563, 1.46, 50.25, 4390912)),
        (ASCEND_018, EngineMemory(2.1563, 1.46, 50.25, 4390912)),
        ("", EngineMemory()),
    ],
    ids=["cpu 0.32", "cpu 0.11", "cuda 0.11", "cuda 0.32", "ascend 0.13", "ascend 0.18", "none"],
)
def test_the_figures_of_each_version_are_found(log: str, memory: EngineMemory) -> None:
    assert memory_of(log) == memory


@pytest.mark.parametrize(
    "line",
    [
        "Initial free memory 60.00GiB, reserved 2.00GiB memory for KV Cache as specified by",
        "Initial free memory 60.0 GiB, reserved 2.0 GiB memory for KV Cache as specified by",
        "Initial free memory 60.00 GiB, reserved 2.00 GiB for KV Cache as specified by",
        "Auto set (2.0/23.54) GiB for KV cache on node 0, with 9.4 GiB requested memory",
    ],
    ids=["0.11", "0.32", "ascend 0.23", "cpu"],
)
def test_a_kv_cache_of_a_stated_size_is_found(line: str) -> None:
    assert memory_of(line).kv_cache_gib == 2.0


def test_the_class_that_serves_the_model_is_found() -> None:
    line = "(APIServer pid=1) INFO [model.py:733] Resolved architecture: InternVLChatModel"
    assert architecture_of(f"{line}\n{CPU_032}") == "InternVLChatModel"
    assert architecture_of(CPU_032) is None


CAPTURED = "INFO [gpu_model_runner.py:3480] Graph capturing finished in 8 secs, took 0.31 GiB"
READY = "INFO:     Application startup complete."
REPLAYED = "INFO 12-05 08:42:11 [acl_graph.py:187] Replaying aclgraph"


def test_the_lines_that_show_a_complete_start_are_found() -> None:
    log = f"a\n\x1b[1;36m{CAPTURED}\x1b[0m\nWorker_TP1 {CAPTURED}\n{READY}\nb\n{REPLAYED}\nc"
    assert milestones_of(log) == (CAPTURED, READY, REPLAYED)
    assert milestones_of(f"{CPU_032}\n{READY}\n{READY}") == (READY,)
    assert milestones_of(CPU_032) == ()


def test_a_warning_about_memory_is_no_figure() -> None:
    log = "Adding 3 padding layers may waste at most 12.00% KV cache memory; KV cache usage: 3.0%"
    assert memory_of(log) == EngineMemory()


@pytest.mark.parametrize("log", [CPU_032, CPU_011, CUDA_032, ASCEND_013, ASCEND_018])
def test_a_log_with_figures_is_past_its_weights(log: str) -> None:
    assert phase_of(log) is Phase.GRAPHS
