"""Four simulated Ascend cards, for the project's own tests.

`install` creates two things for a test run. The first is a distribution `vllm-ascend` that
registers a vLLM platform by the same entry point as the real one; the platform is named npu and
uses vLLM's CPU worker. Like the real one it lists log-probabilities only and has cache blocks of
128 tokens; as in its image, OMP_NUM_THREADS is 1. The second is an `npu-smi` whose table lists the
processes that really run.
There are no /dev/davinci* nodes, so the plugin reports such a run as SIMULATED.

This file is also the program `npu-smi`. SIMULATED_NPU names a JSON file with the cards' state:

  cards: number of cards
  health: card -> text of the health column; "OK" by default
  strangers: card -> [pid, name, MiB] of a process that another user started
  leak_mib: memory that stays in use on a card after a server ran on it
  error: text that is printed instead of a table
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

IDLE_MIB = 2900
TOTAL_MIB = 32768
_LINE = "+" + 78 * "-" + "+"
_PLATFORM = """
from vllm.platforms.cpu import CpuPlatform


class SimulatedNpu(CpuPlatform):
    device_name = "npu"
    device_control_env_var = "ASCEND_RT_VISIBLE_DEVICES"

    @classmethod
    def get_device_name(cls, device_id=0):
        return "simulated 910B4"

    @classmethod
    def check_and_update_config(cls, vllm_config):
        super().check_and_update_config(vllm_config)
        vllm_config.cache_config.block_size = 128
        # The sampler of vllm-ascend 0.11 to 0.23 ignores --logprobs-mode.
        if vllm_config.model_config is not None:
            vllm_config.model_config.logprobs_mode = "raw_logprobs"
"""


def install(root: Path, *, vllm_version: str, ascend_version: str, **plan: Any) -> dict[str, str]:
    """Creates the simulation under `root`; returns the environment variables that activate it."""
    site, programs = root / "site", root / "bin"
    package = site / "vllm_ascend"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "def register():\n    return 'vllm_ascend.platform.SimulatedNpu'\n", "utf-8"
    )
    (package / "platform.py").write_text(_PLATFORM, "utf-8")
    distribution(site, "vllm_ascend", ascend_version)
    distribution(site, "vllm", vllm_version)
    entry = "[vllm.platform_plugins]\nascend = vllm_ascend:register\n"
    ascend = site / f"vllm_ascend-{ascend_version}.dist-info"
    (ascend / "entry_points.txt").write_text(entry, "utf-8")
    programs.mkdir()
    program = programs / "npu-smi"
    command = f'exec {sys.executable} {Path(__file__).resolve()} "$@"'
    program.write_text(f"#!/bin/sh\n{command}\n", "utf-8")
    program.chmod(0o755)
    state = root / "cards.json"
    state.write_text(json.dumps({"cards": 4, **plan}), "utf-8")
    return {
        "SIMULATED_NPU": str(state),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # The worker computes in the engine's process, as on a host with one NPU.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": "1",
        "TASK_QUEUE_ENABLE": "1",
    }


def distribution(site: Path, name: str, version: str) -> None:
    """Makes a directory of PYTHONPATH name a package and its version."""
    directory = site / f"{name}-{version}.dist-info"
    directory.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
    (directory / "METADATA").write_text(metadata, "utf-8")


def table(plan: dict[str, Any], used: Path) -> str:
    """Output of `npu-smi info` for the cards, in the layout of driver 25 on an Atlas A2."""
    if "error" in plan:
        return str(plan["error"])
    processes: dict[int, list[tuple[int, str, int]]] = {card: [] for card in range(plan["cards"])}
    for card, pid, name, mib in _servers():
        processes.setdefault(card, []).append((pid, name, mib))
        (used / f"used-{card}").touch()
    for card, stranger in plan.get("strangers", {}).items():
        processes[int(card)].append(tuple(stranger))
    rows = [
        ("npu-smi 25.2.0           Version: 25.2.0",),
        ("NPU   Name", "Health", "Power(W)    Temp(C)           Hugepages-Usage(page)"),
        ("Chip", "Bus-Id", "AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)"),
    ]
    for card in range(plan["cards"]):
        leaked = plan.get("leak_mib", 0) if (used / f"used-{card}").exists() else 0
        held = IDLE_MIB + leaked + sum(mib for _, _, mib in processes[card])
        health = plan.get("health", {}).get(str(card), "OK")
        rows.append((f"{card}     910B4", health, "91.2        41                0    / 0"))
        rows.append(("0", f"0000:C{card}:00.0", f"0     0    / 0          {held}/ {TOTAL_MIB}"))
    rows.append(("NPU     Chip", "Process id", "Process name", "Process memory(MB)"))
    for card, found in processes.items():
        rows += [(f"{card}       0", str(pid), name[:24], str(mib)) for pid, name, mib in found]
        if not found:
            rows.append((f"No running processes found in NPU {card}",))
    return "\n".join(line for row in rows for line in (_LINE, f"| {' | '.join(row)} |")) + "\n"


def _servers() -> Iterator[tuple[int, int, str, int]]:
    """(card, pid, name, MiB) of every process of a server that has cards."""
    seen: set[int] = set()
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if "VLLM_API_KEY" not in environment or "ASCEND_RT_VISIBLE_DEVICES" not in environment:
                continue
            if environment.get("SIMULATED_NPU") != os.environ["SIMULATED_NPU"]:
                continue  # on another simulated host
            cards = [int(card) for card in environment["ASCEND_RT_VISIBLE_DEVICES"].split(",")]
            for member in (process, *process.children(recursive=True)):
                if member.pid not in seen and member.status() != psutil.STATUS_ZOMBIE:
                    seen.add(member.pid)
                    mib = max(member.memory_info().rss // 2**20, 1)
                    for card in cards:
                        yield card, member.pid, member.name(), mib
        except psutil.Error:
            continue


if __name__ == "__main__":
    state = Path(os.environ["SIMULATED_NPU"])
    print(table(json.loads(state.read_text("utf-8")), state.parent))
