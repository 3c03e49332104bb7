"""Runs that are kept in a file, so that a benchmark of hours can be continued."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .fault import Fault
from .outcome import Conclusion, Control, Result
from .seen import Row, restored, versions

Line = Mapping[str, Any]


@dataclass
class Kept:
    """The runs of a benchmark.

    A clean run on a sound server is written in full, and is the base of later runs with that tiny
    checkpoint: their lines have what differs from it, and its digest. So several processes may add
    to one file.

    Attributes:
        path: a file with one line of JSON for each run; None keeps nothing.
        results: the judged faults, the latest run of each with a tiny checkpoint.
        controls: the judged sound servers.
    """

    path: Path | None = None
    results: list[Result] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    _bases: dict[str, Sequence[Row]] = field(default_factory=dict, init=False)
    _base_of: dict[str, str] = field(default_factory=dict, init=False)

    @staticmethod
    def read(path: Path | None, faults: Iterable[Fault]) -> Kept:
        """The runs of a file; none if there is no such file.

        Left out are runs without a verdict, runs of other faults, and runs whose base is no longer
        in the file.

        Args:
            path: the file.
            faults: the faults that are asked about.
        """
        kept, by_name = Kept(path), {fault.name: fault for fault in faults}
        for line in _lines(path):
            if not line["problem"] and (not line["base"] or line["base"] in kept._bases):
                kept._take(line, by_name)
        return kept

    def add(self, run: Result | Control) -> None:
        """Adds a run, also to the file."""
        base = self._base_of.get(run.model, "")
        line = {**_identity(run), "base": base, **run.seen.condensed(self.sound(run.model))}
        if self.path is not None:
            _append(self.path, line)
        self._remember(run, line)

    def sound(self, model: str) -> Sequence[Row]:
        """The rows of the first clean run on a sound server of a tiny checkpoint; none before."""
        return self._bases.get(self._base_of.get(model, ""), ())

    def has(self, fault: Fault, model: str) -> bool:
        """True if the installed versions judged a tiny checkpoint with a fault."""
        return any(
            one.conclusion is not Conclusion.NO_VERDICT and one.seen.versions == versions()
            for one in self.results
            if one.fault is fault and one.model == model
        )

    def modes(self, model: str) -> Counter[str]:
        """Mode -> number of runs of the installed versions on sound servers of a checkpoint."""
        return Counter(
            one.mode
            for one in self.controls
            if one.model == model and one.seen.versions == versions()
        )

    def _take(self, line: Line, by_name: Mapping[str, Fault]) -> None:
        seen = restored(line, self._bases.get(line["base"], ()))
        if "mode" in line:
            self._remember(Control(line["model"], line["mode"], seen), line)
        elif fault := by_name.get(line["fault"]):
            marks = line["was_reached"], line["has_acted"]
            self._remember(Result(fault, line["model"], seen, *marks), line)

    def _remember(self, run: Result | Control, line: Line) -> None:
        if isinstance(run, Result):
            about = run.fault, run.model
            others = (one for one in self.results if (one.fault, one.model) != about)
            self.results = [*others, run]
            return
        self.controls.append(run)
        if run.is_clean and not line["base"]:
            digest = _digest(line)
            self._bases[digest] = run.seen.rows
            self._base_of.setdefault(run.model, digest)


def _lines(path: Path | None) -> Iterator[Line]:
    if path is None or not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue  # a killed run wrote a part of it


def _append(path: Path, line: Line) -> None:
    """Appends a line at once, behind the end of whatever a killed run left."""
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        end = b"" if file.read(1) in {b"", b"\n"} else b"\n"
        file.write(end + json.dumps(line).encode() + b"\n")


def _identity(run: Result | Control) -> dict[str, Any]:
    if isinstance(run, Control):
        return {"mode": run.mode, "model": run.model}
    return {
        "fault": run.fault.name,
        "model": run.model,
        "was_reached": run.was_reached,
        "has_acted": run.has_acted,
    }


def _digest(line: Line) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()[:12]
