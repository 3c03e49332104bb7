"""Measures the settings of a published CPU deployment of MinerU2.5-1.2B on this machine.

The document claims: with images of at most 768 px the vision encoder takes 52 % less time; ONNX
Runtime is 1.8 times as fast as PyTorch; with a bounded queue and four bound threads the mean CPU
usage is 40 % lower; 60 % of a request's time goes to the vision encoder (part `shares`, in
cpu_shares.py). It names neither the CPU nor the page. Therefore this benchmark measures each
claim with the model's true geometry and random weights: speed does not depend on their values.

Compared variants run alternately, so that other processes affect all of them equally. Each ratio is
the median over the rounds, with an interval that contains the true median with at least 95 %
probability. If all layers would take hours, we time one or a few layers and multiply, because all
layers are equal. The output shows how many were timed.

These are claims of a document, not of this project: the exit code does not depend on them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import itertools
import json
import math
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cpu_rounds import CLOCKS, LEAST_ROUNDS, Cost, Rounds, say, with_interval
from cpu_shares import measure_shares
from mineru_geometry import (
    A4_200_DPI,
    DECODER,
    LAYERS,
    LONGEST_SIDE,
    ROOT,
    TINY,
    VISION,
    Grid,
    TowerTimer,
    bounded,
    cpu_flags,
    grid_of,
    in_torch,
    new_tower,
    some_pixels,
    threads_here,
)

CLAIMED_FALL, CLAIMED_SPEEDUP, CLAIMED_SAVING = 0.52, 1.8, 0.40
PAGE_PIXELS = 2560 * 28**2
"""Pixels of an untuned page in the model's adaptation document: 2560 image tokens of 28 x 28."""


@dataclass(frozen=True)
class Finding:
    """A claim and its measurement."""

    name: str
    claimed: float
    measured: float
    low: float
    high: float
    conditions: str

    @property
    def verdict(self) -> str:
        """Compares the measurement with the claim; a larger effect confirms the claim too."""
        if self.low >= self.claimed:
            return "holds"
        return "does not hold" if self.high < self.claimed else "cannot be told"

    def __str__(self) -> str:
        return (
            f"{self.name}: claimed {self.claimed:.2f}, measured {self.measured:.2f} "
            f"({self.low:.2f} to {self.high:.2f}): {self.verdict}"
        )


# --- a page's longest side -----------------------------------------------------------------------


def tower_flops(patches: int) -> float:
    """Floating point operations of the 32 layers: matrix products and full attention."""
    width = VISION["embed_dim"]
    return LAYERS * (24 * patches * width**2 + 4 * patches**2 * width)


def side_that_saves(share: float) -> int:
    """Longest side (px) of the A4 page whose operations fall by this share at 768 px."""
    small = tower_flops(math.prod(grid_of(bounded(A4_200_DPI))))
    for side in range(LONGEST_SIDE, max(A4_200_DPI), 14):
        if 1 - small / tower_flops(math.prod(grid_of(bounded(A4_200_DPI, side)))) >= share:
            return side
    return max(A4_200_DPI)


def measure_vit(rounds: int) -> tuple[list[Finding], dict[str, Any]]:
    """Measures the time of the vision encoder by page size."""
    from pytest_ascend_vlm.engines.transformers.cpu_threads import bf16_speed

    side = side_that_saves(CLAIMED_FALL)
    untuned, moderate, small = "2560 image tokens", f"{side} px", f"{LONGEST_SIDE} px"
    grids = {
        untuned: grid_of(A4_200_DPI, PAGE_PIXELS),
        moderate: grid_of(bounded(A4_200_DPI, side)),
        small: grid_of(bounded(A4_200_DPI)),
    }
    timer = TowerTimer(new_tower(1, "sdpa"))
    timer.cost(grids[small])  # the first one also prepares kernels
    ways = {name: lambda grid=grid: timer.cost(grid) for name, grid in grids.items()}
    timed = Rounds(ways, rounds)

    print(f"vision encoder by longest side of an A4 page, float32, SDPA, {rounds} rounds;")
    print(f"1 of {LAYERS} layers timed, the others counted as equal to it")
    for name, grid in {"unbounded, 200 dpi": grid_of(A4_200_DPI), **grids}.items():
        seconds = f"{timed.median(name):8.1f} s" if name in grids else ""
        patches = math.prod(grid)
        print(f"  {name:20}{patches:6} patches{tower_flops(patches) / 1e12:7.1f} TFLOP{seconds}")
    print(f"  bf16 on this CPU: {bf16_speed():.2f} x the speed of float32")
    findings = []
    for name in (untuned, moderate):
        for clock in CLOCKS:
            falls = with_interval([1 - ratio for ratio in timed.ratios(small, name, clock)])
            what = f"ViT {clock} time falls by, {name} -> {small}"
            findings.append(Finding(what, CLAIMED_FALL, *falls, "float32, SDPA"))
    return findings, {"costs": timed.to_json()}


# --- ONNX Runtime --------------------------------------------------------------------------------

ORT_LAYERS = 2
ORT, INT8 = "ONNX Runtime", "ONNX Runtime, INT8"
EAGER, SDPA, ONE = "PyTorch, eager attention", "PyTorch, SDPA", "PyTorch, SDPA, 1 thread"


def measure_ort(rounds: int) -> tuple[list[Finding], dict[str, Any]]:
    """Measures time and numerics of the vision encoder in ONNX Runtime against PyTorch."""
    grid = grid_of(bounded(A4_200_DPI))
    pixels, threads = some_pixels(grid), threads_here()
    with tempfile.TemporaryDirectory() as name:
        towers = {EAGER: new_tower(ORT_LAYERS, "eager"), SDPA: new_tower(ORT_LAYERS, "sdpa")}
        sessions = ort_sessions(towers[SDPA], grid, Path(name))
        ways: dict[str, Callable[[], Cost]] = {
            EAGER: lambda: torch_cost(towers[EAGER], pixels, grid, threads),
            SDPA: lambda: torch_cost(towers[SDPA], pixels, grid, threads),
            ONE: lambda: torch_cost(towers[SDPA], pixels, grid, 1),
            **{
                name: partial(Cost.of, partial(run_ort, session, pixels))
                for name, session in sessions.items()
            },
        }
        Rounds(ways, 1)  # the first time also prepares kernels
        timed = Rounds(ways, rounds)
        exact = in_torch(towers[SDPA], pixels, grid)
        numbers = {name: figures(run_ort(one, pixels), exact) for name, one in sessions.items()}
    print(f"vision encoder of {ORT_LAYERS} of {LAYERS} layers, {math.prod(grid)} patches (768 px),")
    print(f"float32, {threads} threads, {rounds} rounds")
    print(f"{'':28}{'median':>10}  as fast as PyTorch, SDPA; by processor time")
    for name in ways:
        wall, processor = (
            "{:5.2f} x ({:.2f} to {:.2f})".format(*with_interval(timed.ratios(SDPA, name, clock)))
            for clock in CLOCKS
        )
        print(f"  {name:26}{timed.median(name):8.2f} s{wall:>24}{processor:>24}")
    for name, measured in {**numbers, **trained_numbers()}.items():
        print(f"  {name}: " + ", ".join(f"{key} {value:.6g}" for key, value in measured.items()))
    findings = []
    for fast, slow in ((ORT, EAGER), (ORT, SDPA), (INT8, EAGER), (INT8, SDPA)):
        for clock in CLOCKS:
            speedup = with_interval(timed.ratios(slow, fast, clock))
            what = f"{fast} against {slow}, {clock} time, x"
            findings.append(Finding(what, CLAIMED_SPEEDUP, *speedup, f"{threads} threads"))
    return findings, {"costs": timed.to_json(), "numbers": numbers}


def torch_cost(tower: Any, pixels: Any, grid: Grid, threads: int) -> Cost:
    """Cost of one image in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    return Cost.of(lambda: in_torch(tower, pixels, grid))


def run_ort(session: Any, pixels: Any) -> Any:
    """The output of a session for an image."""
    from vision_onnx import run

    return run(session, pixels)


def ort_sessions(tower: Any, grid: Grid, directory: Path) -> dict[str, Any]:
    """Sessions of a tower in float32, and with INT8 linear layers (weights and activations)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from vision_onnx import export, open_session

    path = export(tower, grid, directory / "float32")
    quantised = directory / "int8.onnx"
    quantize_dynamic(
        path, quantised, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8,
        per_channel=True,
    )  # fmt: skip
    threads = threads_here()
    return {
        ORT: open_session(path, threads=threads),
        INT8: open_session(quantised, threads=threads),
    }


def figures(observed: Any, exact: Any, rounded: Any = None) -> dict[str, float]:
    """The project's numeric measures; R only if PyTorch's bf16 output is given."""
    from pytest_ascend_vlm.criteria.comparison import CaseComparison
    from pytest_ascend_vlm.criteria.error_statistics import ErrorStatistics

    rows = np.arange(len(exact))
    base = exact if rounded is None else rounded
    part = np.full(len(exact), "image")
    measures = ErrorStatistics(
        [CaseComparison("page", "embeddings", rows, part, exact, base, observed)]
    )
    measured = {
        "cosine": measures.cosine_similarity,
        "lowest cosine": measures.lowest_cosine,
        "relative error": measures.relative_error,
    }
    return measured if rounded is None else {**measured, "R": measures.error_ratio.value}


def trained_numbers() -> dict[str, dict[str, float]]:
    """The numeric measures of the tiny trained tower on a page that it can read."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor
    from vision_onnx import load_tower

    with Image.open(ROOT / "fixtures" / "documents" / "page-01.png") as page:
        made = AutoImageProcessor.from_pretrained(TINY)(page.convert("RGB"), return_tensors="np")
    pixels, (_, height, width) = made["pixel_values"], made["image_grid_thw"][0].tolist()
    grid = (1, height, width)
    tower = load_tower(TINY)
    exact = in_torch(tower, pixels, grid)
    with tempfile.TemporaryDirectory() as name:
        sessions = ort_sessions(tower, grid, Path(name))
        observed = {name: run_ort(session, pixels) for name, session in sessions.items()}
    rounded = in_torch(tower.to(torch.bfloat16), pixels, grid)
    return {f"{name}, trained": figures(x, exact, rounded) for name, x in observed.items()}


# --- served --------------------------------------------------------------------------------------

SERVED_LAYERS = 1
LOAD = 0.85
"""Share of time that the document's untuned server is busy with the stream."""

OUTPUT_TOKENS = 16
BURST = 8
QUEUE = 4
"""Maximum number of requests in flight: three wait, one runs."""

UNTUNED, TUNED = "untuned", "tuned"
TUNING = {
    "mm_processor_kwargs": {"max_pixels": LONGEST_SIDE**2},
    "max_num_seqs": QUEUE,
    "max_num_queued_reqs": QUEUE,
}


@dataclass(frozen=True)
class Block:
    """The measurements of one page on a server.

    Attributes:
        processor: seconds of all its processes, from the request until the next one is due.
        peak: share of all cores that it took in the busiest second.
        latency: seconds until the answer.
    """

    processor: float
    peak: float
    latency: float


def measure_served(rounds: int) -> tuple[list[Finding], dict[str, Any]]:
    """Measures CPU usage and latency of a tuned and an untuned server with the same pages."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = served_checkpoint(directory / "checkpoint")
        untuned = stack.enter_context(serving(checkpoint, {}, directory / "untuned.log"))
        tuned = stack.enter_context(serving(checkpoint, TUNING, directory / "tuned.log"))
        servers = {UNTUNED: untuned, TUNED: tuned}
        interval = max(untuned.ask()[1] for _ in range(2)) / LOAD
        blocks: dict[str, list[Block]] = {name: [] for name in servers}
        for round_ in range(rounds):
            for name in servers if round_ % 2 else reversed(servers):
                blocks[name].append(servers[name].stream(interval))
                say(f"round {round_ + 1} of {rounds}: {name} {blocks[name][-1]}")
        burst = tuned.burst()
    return report_served(blocks, interval, burst)


def report_served(
    blocks: Mapping[str, Sequence[Block]],
    interval: float,
    burst: Mapping[int, int],
) -> tuple[list[Finding], dict[str, Any]]:
    """Prints both servers and the effect of the tuning."""
    print("served by vLLM on CPU, float32, random weights of the true widths,")
    print(f"{SERVED_LAYERS} of {LAYERS} vision layers and {SERVED_LAYERS} of 24 decoder layers;")
    print(f"a page every {interval:.1f} s, {len(blocks[TUNED])} pages each, in turns")
    print(f"{'CPU use, % of all cores':26}{'mean':>6}{'peak':>6}{'a page':>14}{'latency':>11}")
    for name, measured in blocks.items():
        processor = statistics.median(block.processor for block in measured)
        mean = share((0.0, 0.0), (interval, processor))
        peak = max(block.peak for block in measured)
        latency = statistics.median(block.latency for block in measured)
        print(f"  {name:24}{100 * mean:6.0f}{100 * peak:6.0f}{processor:12.1f} s{latency:9.1f} s")
    print(f"  a burst of {BURST} at the tuned server, answers by HTTP status: {dict(burst)}")
    use, latencies = (
        [
            1 - getattr(after, what) / getattr(before, what)
            for after, before in zip(blocks[TUNED], blocks[UNTUNED], strict=True)
        ]
        for what in ("processor", "latency")
    )
    details = {name: [vars(block) for block in measured] for name, measured in blocks.items()}
    print("  latency falls by {:.2f} ({:.2f} to {:.2f})".format(*with_interval(latencies)))
    conditions = f"untuned server busy {LOAD:.0%} of the time"
    found = Finding("mean CPU use falls by", CLAIMED_SAVING, *with_interval(use), conditions)
    return [found], {"blocks": details, "burst": dict(burst)}


def served_checkpoint(directory: Path) -> Path:
    """A checkpoint without weights: the true widths with the tiny tokenizer and vocabulary."""
    shutil.copytree(TINY, directory, ignore=shutil.ignore_patterns("*.safetensors", "PROVENANCE*"))
    config = json.loads((TINY / "config.json").read_text("utf-8"))
    config |= {**DECODER, "num_hidden_layers": SERVED_LAYERS, "max_window_layers": SERVED_LAYERS}
    config["vision_config"] |= {**VISION, "depth": SERVED_LAYERS}
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    processor = json.loads((TINY / "preprocessor_config.json").read_text("utf-8"))
    processor["max_pixels"] = PAGE_PIXELS
    (directory / "preprocessor_config.json").write_text(json.dumps(processor), "utf-8")
    return directory


@contextlib.contextmanager
def serving(checkpoint: Path, tuning: Mapping[str, Any], log: Path) -> Iterator[Served]:
    """Starts a server of the checkpoint, bound to the cores that the document would use."""
    import psutil

    from pytest_ascend_vlm.engines.vllm.server import Launch, VllmServer
    from pytest_ascend_vlm.spec.case import Capability, Case
    from pytest_ascend_vlm.spec.model import Budgets

    serve = {
        "load_format": "dummy",
        "dtype": "float32",
        "max_model_len": 4096,
        "max_num_batched_tokens": 4096,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "enforce_eager": True,
        **tuning,
    }
    env = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads_here() - 1}",
    }
    launch = Launch(checkpoint, "mineru", serve, env, Budgets(), log)
    page = ROOT / "fixtures" / "documents" / "page-01.png"
    first = Case("image/first", Capability.IMAGE, "Extract all text.", (page,))
    others = set(psutil.Process().children(recursive=True))
    server = VllmServer(launch, first, lambda *_: None, lambda: None)
    say(f"starting {server.serve_command}")
    server.start()
    try:
        own = set(psutil.Process().children(recursive=True)) - others
        yield Served(server.endpoint, list(own))
    finally:
        server.stop()


class Served:
    """A running server, with its requests and the CPU time of its processes."""

    def __init__(self, endpoint: Any, processes: Sequence[Any]) -> None:
        self._endpoint = endpoint
        self._processes = processes
        self._asked = 0
        self._lock = threading.Lock()

    def stream(self, interval: float) -> Block:
        """Sends one page of a stream with a given interval in seconds."""
        latency = 0.0

        def request() -> None:
            nonlocal latency
            _, latency = self.ask()
            time.sleep(max(0.0, interval - latency))

        processor, peak = self.watch(request)
        return Block(processor, peak, latency)

    def burst(self) -> Mapping[int, int]:
        """Sends many pages at once; returns the number of answers by HTTP status."""
        with concurrent.futures.ThreadPoolExecutor(BURST) as pool:
            codes = [code for code, _ in pool.map(lambda _: self.ask(), range(BURST))]
        return {code: codes.count(code) for code in sorted(set(codes))}

    def ask(self) -> tuple[int, float]:
        """HTTP status and seconds of a new page."""
        import httpx

        with self._lock:
            self._asked += 1
            body = request_body(self._asked)
        headers = {"Authorization": f"Bearer {self._endpoint.api_key}"}
        since = time.monotonic()
        url = f"{self._endpoint.url}/v1/chat/completions"
        answer = httpx.post(url, json=body, headers=headers, timeout=600, trust_env=False)
        if answer.status_code not in {200, 503}:
            sys.exit(f"the server answered {answer.status_code}: {answer.text}")
        return answer.status_code, time.monotonic() - since

    def watch(self, action: Callable[[], object]) -> tuple[float, float]:
        """CPU seconds of the server during an action, and its peak share of all cores."""
        samples = [(time.monotonic(), self._processor_seconds())]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(action)
            while not concurrent.futures.wait([running], timeout=1.0).done:
                samples.append((time.monotonic(), self._processor_seconds()))
            running.result()
        samples.append((time.monotonic(), self._processor_seconds()))
        shares = [share(*pair) for pair in itertools.pairwise(samples)]
        return samples[-1][1] - samples[0][1], max(shares)

    def _processor_seconds(self) -> float:
        return float(
            sum(times.user + times.system for times in (p.cpu_times() for p in self._processes))
        )


def share(before: tuple[float, float], after: tuple[float, float]) -> float:
    """CPU seconds between two samples, divided by those of all cores."""
    import psutil

    cores = psutil.cpu_count() or 1
    return (after[1] - before[1]) / max(after[0] - before[0], 1e-3) / cores


def request_body(number: int) -> dict[str, Any]:
    """The request for a new page, so that no cache is hit."""
    import base64
    import io

    from PIL import Image, ImageDraw

    page = Image.new("RGB", A4_200_DPI, "white")
    ImageDraw.Draw(page).text((200, 200), f"page {number}", fill="black", font_size=80)
    encoded = io.BytesIO()
    page.save(encoded, "png")
    url = f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Extract all text."},
    ]
    return {
        "model": "mineru",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
        "temperature": 0,
    }


# -------------------------------------------------------------------------------------------------


def measure_stages(rounds: int) -> tuple[list[Finding], dict[str, Any]]:
    """Measures the shares; a share above the claimed one is no confirmation, so no findings."""
    return [], measure_shares(rounds)


PARTS = {
    "vit": measure_vit,
    "ort": measure_ort,
    "served": measure_served,
    "shares": measure_stages,
}


def this_cpu() -> str:
    """The CPU, its number of cores, and its instructions for fast bf16."""
    import psutil

    from pytest_ascend_vlm.platforms.cpu import Cpu

    known = cpu_flags()
    has = [name for name in ("avx512f", "avx512_bf16", "amx_bf16") if name in known]
    return f"{Cpu().device()}, {psutil.cpu_count()} cores, of {', '.join(has) or 'AVX2 alone'}"


def main() -> int:
    """Measures the selected parts and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=[*PARTS], action="append", help="default: all of them")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds must be at least {LEAST_ROUNDS}")
    from pytest_ascend_vlm.engines import torch_companions

    torch_companions.install()
    print(this_cpu())
    findings, details = [], {}
    for part in arguments.part or PARTS:
        found, details[part] = PARTS[part](arguments.rounds)
        findings += found
        for finding in found:
            print(f"  {finding}")
    result = {
        "benchmark": "cpu_tuning",
        "cpu": this_cpu(),
        "findings": [{**vars(finding), "verdict": finding.verdict} for finding in findings],
        **details,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
