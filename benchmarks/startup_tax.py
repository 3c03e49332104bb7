"""Promise: a project that merely has the plugin installed starts at most 30 ms later.

Times `pytest --collect-only` of an empty project with the plugin and with `-p no:ascend_vlm`, in
turns, so that whatever else the machine does falls on both alike. The median of the differences
within the pairs is the tax. Processor time is shown beside it: where it is much the smaller of the
two, the machine was busy with something else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROMISE_MS = 30.0
LEAST_ROUNDS = 15
WITH: tuple[str, ...] = ()
WITHOUT = ("-p", "no:ascend_vlm")


@dataclass(frozen=True)
class Cost:
    """What one pytest process took, in ms."""

    wall: float
    processor: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.processor - other.processor)


def collect(directory: Path, arguments: Sequence[str]) -> Cost:
    """Runs one pytest process that collects nothing."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    since, used = time.perf_counter(), processor_seconds()
    # Python as it is used: compiled modules are kept, so that nobody compiles them at every start.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    ran = subprocess.run(
        [*command, *arguments], cwd=directory, env=env, capture_output=True, text=True, check=False
    )
    cost = Cost(1000 * (time.perf_counter() - since), 1000 * (processor_seconds() - used))
    if ran.returncode != 5:  # pytest's code for "no tests"
        sys.exit(f"pytest exited with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return cost


def processor_seconds() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def require_plugin(directory: Path) -> None:
    """Two runs without the plugin would be equally fast, and prove nothing."""
    command = [sys.executable, "-m", "pytest", "--help", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    if "--vlm-platform" not in ran.stdout:
        sys.exit("pytest-ascend-vlm is not installed in this environment")


def measure(rounds: int) -> list[tuple[Cost, Cost]]:
    """(with, without), one pair a round, after one round that warms the disk cache."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        require_plugin(directory)
        pairs = []
        for round_ in range(rounds + 1):
            # Every other round starts with the other one: neither always runs on the warmer cache.
            order = (WITH, WITHOUT) if round_ % 2 else (WITHOUT, WITH)
            cost = {arguments: collect(directory, arguments) for arguments in order}
            pairs.append((cost[WITH], cost[WITHOUT]))
    return pairs[1:]


def main() -> int:
    """Measures, prints, and tells by the exit code whether the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help=f"at least {LEAST_ROUNDS}")
    rounds = parser.parse_args().rounds
    if rounds < LEAST_ROUNDS:
        parser.error(f"--rounds must be at least {LEAST_ROUNDS}")
    pairs = measure(rounds)
    with_ms, without_ms = (
        statistics.median(cost.wall for cost in column) for column in zip(*pairs, strict=True)
    )
    differences = [with_it - without for with_it, without in pairs]
    tax_ms = statistics.median(difference.wall for difference in differences)
    processor_ms = statistics.median(difference.processor for difference in differences)
    low, _, high = statistics.quantiles((difference.wall for difference in differences), n=4)
    holds = tax_ms <= PROMISE_MS
    print(f"pytest --collect-only of an empty project, {rounds} pairs, medians")
    print(f"  with the plugin     {with_ms:7.1f} ms")
    print(f"  without it          {without_ms:7.1f} ms")
    print(f"  difference          {tax_ms:7.1f} ms   (half of the pairs: {low:.1f} to {high:.1f})")
    print(f"  in processor time   {processor_ms:7.1f} ms")
    print(f"  promise             {PROMISE_MS:7.1f} ms   {'holds' if holds else 'BROKEN'}")
    result = {
        "benchmark": "startup_tax",
        "with_ms": round(with_ms, 1),
        "without_ms": round(without_ms, 1),
        "tax_ms": round(tax_ms, 1),
        "processor_ms": round(processor_ms, 1),
        "rounds": rounds,
        "promise": PROMISE_MS,
        "holds": holds,
    }
    print(json.dumps(result))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
