"""Measures which criteria detect which fault, and how often a sound model fails.

Real vLLM serves tiny checkpoints: sound ones, and with one fault after another of `faults/`. The
suite judges each server through --vlm-server-url, so it knows neither the weights nor the fault.
Some faults only show on a server with arguments of its own. For these the suite starts all servers
itself, each with the fault.

Promises:
* every fault turns all criteria red that it names (`caught_by`);
* a sound model passes every run, in eager mode and compiled.

A fault that was not active is an error of this benchmark: vLLM has changed, or the model does not
reach the code. Compiled mode needs a C++ compiler. On two cores a fault takes about two minutes, or
six if the suite starts the servers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults.checkpoint import CheckpointFault, NotApplicableError, harmed_copy
from faults.engine import hooks
from faults.engine.hooks import EngineFault
from faults.fault import Fault, Kind
from faults.kept import Kept
from faults.library import FAULTS
from faults.marks import Marks
from faults.outcome import Control, Result, holds
from faults.proxy import Changes, proxy
from faults.seen import Seen
from faults.tables import line, tables
from faults.wire import WireFault
from tiny_model import (
    FIXTURES,
    MODELS,
    SuiteDidNotRunError,
    judge,
    run_suite,
    running,
    server,
)

from pytest_ascend_vlm.engines.endpoint import Endpoint
from pytest_ascend_vlm.engines.vllm.server import VllmServer
from pytest_ascend_vlm.errors import ServerError

NEED_OWN_SERVERS = frozenset(
    {"numerics.borders", "determinism.preemption", "recovery.killed_engine", "growth.memory"}
)
"""Criteria that start a server with arguments of their own, or end one.

An endpoint is not judged by them.
"""

EAGER, COMPILED, PROXY, OWN = "eager", "compiled", "eager, behind a proxy", "by the suite"
"""How a sound model is served. The proxy changes nothing; its own mistakes are false alarms."""

SOAK = "by the suite, with many pictures"
"""The same, judged by the criteria that show faults of the kind `growth`, and by no other."""


LADDER = "eager, with many requests at once"
"""The same for faults of the kind `crowd`."""

_MANY_PICTURES = ("-m", "soak")
_AT_ONCE = ("-m", "ladder")


@dataclass(frozen=True)
class Bench:
    """One tiny checkpoint with the faults that it is served with.

    Attributes:
        name: the checkpoint.
        chosen: the chosen faults; sound servers are served and judged as those of these faults.
        faults: those of them that are to be judged.
        clean_runs: number of runs on sound servers.
        work: an empty directory.
        known: mode -> number of runs on sound servers that are known already.
    """

    name: str
    chosen: tuple[Fault, ...]
    faults: tuple[Fault, ...]
    clean_runs: int
    work: Path
    known: Mapping[str, int] = field(default_factory=dict)

    @property
    def controls(self) -> Counter[str]:
        """Mode -> number of runs on sound servers that are to be made."""
        kinds = {fault.kind for fault in self.chosen}
        others = [fault for fault in self.chosen if not selection(fault)]
        modes = [
            *([EAGER, COMPILED] if others else []),
            *([PROXY] if any(isinstance(fault, WireFault) for fault in others) else []),
            *([OWN] if any(map(needs_own_servers, others)) else []),
            *([LADDER] if Kind.CROWD in kinds else []),
            *([SOAK] if Kind.GROWTH in kinds else []),
        ]
        wanted = Counter(itertools.islice(itertools.cycle(modes), self.clean_runs))
        return wanted - Counter(self.known)

    def runs(self) -> Iterator[Control | Result]:
        """Judges the sound model and each fault."""
        on_the_wire = [fault for fault in self.faults if isinstance(fault, WireFault)]
        controls = self.controls
        eager = [mode for mode in (EAGER, PROXY, LADDER) for _ in range(controls[mode])]
        yield from self._on_one_server(eager, on_the_wire)
        yield from self._on_one_server([COMPILED] * controls[COMPILED], ())
        for _ in range(controls[OWN]):
            yield Control(self.name, OWN, self._judged_by_suite({}))
        for _ in range(controls[SOAK]):
            yield Control(self.name, SOAK, self._judged_by_suite({}, *_MANY_PICTURES))
        for fault in self.faults:
            if isinstance(fault, CheckpointFault):
                yield self._in_checkpoint(fault)
            if isinstance(fault, EngineFault):
                yield self._in_engine(fault)

    def _on_one_server(
        self, controls: Sequence[str], faults: Sequence[WireFault]
    ) -> Iterator[Control | Result]:
        if not controls and not faults:
            return
        sound = server(MODELS[self.name], self._empty("sound"))
        try:
            with running(sound, {"enforce_eager": COMPILED not in controls}) as endpoint:
                for mode in controls:
                    yield self._control(mode, sound, endpoint)
                for fault in faults:
                    yield self._on_the_wire(fault, sound, endpoint)
        except ServerError as error:
            mode = controls[0] if controls else PROXY
            yield Control(self.name, mode, _did_not_start(error))

    def _control(self, mode: str, sound: VllmServer, endpoint: Endpoint) -> Control:
        if mode != PROXY:
            arguments = _AT_ONCE if mode == LADDER else ()
            return Control(self.name, mode, self._judged(sound, endpoint, *arguments))
        with proxy(endpoint, Changes(), lambda: None) as same:
            return Control(self.name, mode, self._judged(sound, same))

    def _on_the_wire(self, fault: WireFault, sound: VllmServer, endpoint: Endpoint) -> Result:
        acted = threading.Event()
        with proxy(endpoint, fault.changes(), acted.set) as changed:
            seen = self._judged(sound, changed, *selection(fault))
        return Result(fault, self.name, seen, has_acted=acted.is_set())

    def _in_checkpoint(self, fault: CheckpointFault) -> Result:
        checkpoint = FIXTURES / "tiny" / self.name
        try:
            root = harmed_copy(checkpoint, fault.harm, self._empty("checkpoint"))
        except NotApplicableError as error:
            return Result(fault, self.name, Seen(problem=str(error)))
        harmed = server(MODELS[self.name], self._empty("server"), (root, FIXTURES))
        return Result(fault, self.name, self._served(harmed, {}, lambda: None))

    def _in_engine(self, fault: EngineFault) -> Result:
        marks = Marks(self._empty("marks"))
        env = hooks.environment([fault.name], marks, os.environ.get("PYTHONPATH"))
        if needs_own_servers(fault):
            seen = self._judged_by_suite(env, *selection(fault))
        else:
            faulty = server(MODELS[self.name], self._empty("server"))
            seen = self._served(faulty, env, marks.forget_actions, *selection(fault))
        reached, acted = marks.was_reached(fault.name), marks.has_acted(fault.name)
        return Result(fault, self.name, seen, reached, acted)

    def _served(
        self,
        faulty: VllmServer,
        env: Mapping[str, str],
        on_start: Callable[[], None],
        *arguments: str,
    ) -> Seen:
        try:
            with running(faulty, env=env) as endpoint:
                on_start()
                return self._judged(faulty, endpoint, *arguments)
        except ServerError as error:
            return _did_not_start(error)

    def _judged(self, served: VllmServer, endpoint: Endpoint, *arguments: str) -> Seen:
        """What a run on a server shows."""
        try:
            rows = judge(MODELS[self.name], endpoint, self.work, *arguments)
            served.require_alive()
        except (SuiteDidNotRunError, ServerError) as error:
            return Seen(problem=str(error))
        return Seen(rows)

    def _judged_by_suite(self, env: Mapping[str, str], *arguments: str) -> Seen:
        """The same for servers that the suite starts."""
        try:
            how = ("--vlm-platform=cpu", *arguments)
            return Seen(run_suite(MODELS[self.name], self.work, how, env))
        except SuiteDidNotRunError as error:
            return Seen(problem=str(error))

    def _empty(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))


def _did_not_start(error: ServerError) -> Seen:
    return Seen(problem=f"the server does not start: {error}")


def needs_own_servers(fault: Fault) -> bool:
    """True if a criterion that the fault names is not asked of an endpoint."""
    return bool(NEED_OWN_SERVERS & set(fault.caught_by))


def selection(fault: Fault) -> tuple[str, ...]:
    """The arguments without which the suite does not run the criteria that the fault names."""
    return {Kind.GROWTH: _MANY_PICTURES, Kind.CROWD: _AT_ONCE}.get(fault.kind, ())


def planned(faults: Sequence[Fault], model: str | None) -> dict[str, tuple[Fault, ...]]:
    """Tiny checkpoint -> the faults to put into it.

    Args:
        faults: the chosen faults.
        model: the only checkpoint to use; None for each fault's preferred one. A fault that cannot
            be put into it is left out.
    """
    return {
        name: tuple(fault for fault in faults if _chosen(fault, model) == name)
        for name in ([model] if model else MODELS)
    }


def _chosen(fault: Fault, model: str | None) -> str | None:
    if model is None:
        return fault.models[0]
    return model if model in fault.models else None


def measure(plan: Mapping[str, tuple[Fault, ...]], clean_runs: int, work: Path, kept: Kept) -> None:
    """Runs what is not kept yet of the plan, and prints a line for each run."""
    benches = []
    for name, faults in plan.items():
        new = tuple(fault for fault in faults if not kept.has(fault, name))
        benches.append(Bench(name, faults, new, clean_runs, work, kept.modes(name)))
    total = sum(bench.controls.total() + len(bench.faults) for bench in benches)
    runs = itertools.chain.from_iterable(bench.runs() for bench in benches)
    for number, run in enumerate(runs, 1):
        kept.add(run)
        print(f"[{number}/{total}] {run.model}: {_told(run)}", flush=True)


def _told(run: Result | Control) -> str:
    if isinstance(run, Result):
        what, conclusion = run.fault.name, run.conclusion.value
    else:
        what, conclusion = f"sound, served {run.mode}", "clean" if run.is_clean else "FALSE ALARM"
    about = line(what, conclusion, run.seen.red)
    return f"{about}\n{run.seen.problem}" if run.seen.problem else about


def page(kept: Kept) -> str:
    """The runs as a page in Markdown."""
    runs = [*(one.seen for one in kept.results), *(one.seen for one in kept.controls)]
    of_versions = Counter(" ".join(itertools.chain(*run.versions.items())) for run in runs)
    where = "; ".join(f"{count} runs with {versions}" for versions, count in of_versions.items())
    shown = tables(kept.results, kept.controls)
    return (
        "# Detected faults\n\n"
        "Written by `benchmarks/fault_detection.py`. [What the criteria detect](detection.md) says "
        f"how a run is made.\n\nJudged on a CPU: {where}.\n\n{shown}"
    )


def options() -> argparse.Namespace:
    """The arguments of the command line."""
    names = [fault.name for fault in FAULTS]
    kinds = [kind.value for kind in Kind]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--faults", nargs="+", choices=names, default=names, metavar="NAME",
        help=f"of {', '.join(names)}; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND",
        help=f"of {', '.join(kinds)}; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--model", choices=MODELS, help="the tiny checkpoint; default: each fault's preferred one"
    )
    parser.add_argument(
        "--clean-runs", type=int, default=4,
        help="runs on sound servers for each checkpoint, each way of serving in turns; default: 4",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, metavar="FILE",
        help="add each run to this file, and do not repeat the runs that it has; when you change a "
        "criterion or a fault, delete the lines that it concerns",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="write a page in Markdown to this file")
    return parser.parse_args()


def main() -> int:
    """Prints the tables and, as the last line, one JSON object."""
    asked = options()
    chosen = [one for one in FAULTS if one.name in asked.faults and one.kind.value in asked.kinds]
    kept = Kept.read(asked.keep, chosen)
    with tempfile.TemporaryDirectory() as work:
        measure(planned(chosen, asked.model), asked.clean_runs, Path(work), kept)
    results, controls = kept.results, kept.controls
    print(tables(results, controls))
    if asked.output:
        asked.output.write_text(page(kept), "utf-8")
    as_promised = holds(results, controls)
    found = {
        "benchmark": "fault_detection",
        "results": [one.to_json() for one in results],
        "controls": [one.to_json() for one in controls],
        "holds": as_promised,
    }
    print(json.dumps(found))
    return 0 if as_promised else 1


if __name__ == "__main__":
    sys.exit(main())
