"""The gate: a run passes only if every required criterion of every required model was verified.

`required.txt` lists pairs of test class and criterion, one per line. `ascend-vlm gate-list` writes
it from the model files. A listed criterion must end as a pass, an expected failure, or declared not
applicable. Otherwise the run fails, even if pytest would pass it: a criterion that was deselected,
skipped or never collected was not verified. A criterion also counts as not verified if the
reference does not know the answer to any of its cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .reporting.rows import ACCEPTED

Pair = tuple[str, str]
"""(test class, criterion id)."""

_SHOWN = 20


def shortfalls(
    required: Sequence[Pair],
    rows: Iterable[Mapping[str, Any]],
    deselected: Collection[Pair] = (),
    *,
    may_lack_checkpoints: bool,
) -> list[str]:
    """The shortfalls of a gate, one line per class and reason; empty if the gate passes.

    Args:
        required: the content of required.txt.
        rows: the report's rows.
        deselected: criteria of which the run deselected at least one case.
        may_lack_checkpoints: True if a whole class may be not applicable. In a run with tiny
            checkpoints that is every class without one.
    """
    found: dict[Pair, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["suite_class"], row["criterion"]), []).append(row)
    lines: list[str] = []
    for suite_class in dict.fromkeys(name for name, _ in required):
        criteria = [criterion for name, criterion in required if name == suite_class]
        of_class = {criterion: found.get((suite_class, criterion), []) for criterion in criteria}
        lines += [f"{suite_class}: {problem}" for problem in _problems(of_class)]
        statuses = {row["status"] for rows in of_class.values() for row in rows}
        if statuses == {"na"} and not may_lack_checkpoints:
            lines.append(
                f"{suite_class}: all its criteria are not applicable, so nothing was verified"
            )
    partly = [pair for pair in required if pair in deselected and pair in found]
    lines += [
        f"{name}: {criterion}: some of its cases were deselected" for name, criterion in partly
    ]
    passed = any(row["status"] == "pass" for pair in required for row in found.get(pair, ()))
    return lines if lines or passed else ["no required criterion was verified"]


def _problems(of_class: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    unseen = [criterion for criterion, rows in of_class.items() if not rows]
    if unseen:
        yield f"{_counted(unseen, of_class)} did not run"
    unknown = [criterion for criterion, rows in of_class.items() if _is_unknown(rows)]
    if unknown:
        yield (
            f"{_counted(unknown, of_class)}: the reference does not know the answer to any case, "
            "so nothing was verified"
        )
    reasons: dict[str, list[str]] = {}
    for criterion, rows in of_class.items():
        for row in rows:
            if row["status"] not in ACCEPTED:
                first_line = str(row["reason"]).partition("\n")[0]
                reasons.setdefault(f"{row['status']}: {first_line}", []).append(criterion)
    for reason, criteria in reasons.items():
        yield f"{_counted(list(Counter(criteria)), of_class)}: {reason}"


def _is_unknown(rows: Sequence[Mapping[str, Any]]) -> bool:
    """True if all cases are not applicable, at least one because the reference lacks the answer."""
    unknown = [not row.get("reference_knows", True) for row in rows]
    return any(unknown) and all(row["status"] == "na" for row in rows)


def _counted(criteria: Sequence[str], of_class: Mapping[str, Any]) -> str:
    if len(criteria) == len(of_class):
        return f"all {len(criteria)} criteria"
    names = ", ".join(criteria[:_SHOWN])
    return names + (f" and {len(criteria) - _SHOWN} more" if len(criteria) > _SHOWN else "")


def read(path: Path, written_by: str = "ascend-vlm gate-list") -> list[Pair]:
    """Reads a required.txt; a pair that is there twice counts once.

    Args:
        path: the file.
        written_by: the command that writes the file, for the message.

    Raises:
        ConfigurationError: the file is missing, empty, or malformed.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigurationError(
            f"--vlm-gate needs {path} ({why}); write it with `{written_by}`."
        ) from error
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#")]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ConfigurationError(
            f"{path} is not a list of pairs of test class and criterion; write it with "
            f"`{written_by}`."
        )
    return list(dict.fromkeys((suite_class, criterion) for suite_class, criterion in pairs))
