"""The gate: green only where every required criterion of every required model was verified.

`required.txt` lists test class and criterion, one pair a line, and is written by `ascend-vlm
required` from the model files. What is on it and did not end as a pass, an expected failure or
declared not applicable makes a run red, whatever pytest thinks of it: nothing passes because it was
deselected, skipped or never collected, nor because its reference knows none of its cases.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError, VlmError
from .model_files import model_files_in
from .reporting.rows import HOLDS

if TYPE_CHECKING:
    from .spec.dataset import DatasetTask
    from .spec.model import ModelSpec, Variant
    from .suite.criterion import Criterion

Pair = tuple[str, str]
"""(test class, criterion id)."""

LISTED_APART = ("performance", "dataset")
"""Markers whose criteria have lists of their own: they run only where `-m` names them."""

_HEAD = "# Written by `ascend-vlm required`: test class and criterion that --vlm-gate must see.\n"
_SHOWN = 20


def shortfalls(
    required: Sequence[Pair],
    rows: Iterable[Mapping[str, Any]],
    deselected: Collection[Pair] = (),
    *,
    may_lack_checkpoints: bool,
) -> list[str]:
    """What a gate misses, in words, one line a class and reason; empty where it is green.

    Args:
        required: the content of required.txt.
        rows: the report's rows.
        deselected: criteria of which the run left out at least one case.
        may_lack_checkpoints: whether a class may be not applicable as a whole, as one without a
            tiny checkpoint is in a run on tiny checkpoints.
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
            lines.append(f"{suite_class}: nothing of it applies, so nothing was verified")
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
            f"{_counted(unknown, of_class)}: the reference knows none of what is asked, "
            "so nothing was verified"
        )
    reasons: dict[str, list[str]] = {}
    for criterion, rows in of_class.items():
        for row in rows:
            if row["status"] not in HOLDS:
                first_line = str(row["reason"]).partition("\n")[0]
                reasons.setdefault(f"{row['status']}: {first_line}", []).append(criterion)
    for reason, criteria in reasons.items():
        yield f"{_counted(list(Counter(criteria)), of_class)}: {reason}"


def _is_unknown(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no case was judged, and in some the reference was to blame and no declaration."""
    unknown = [not row.get("reference_knows", True) for row in rows]
    return any(unknown) and all(row["status"] == "na" for row in rows)


def _counted(criteria: Sequence[str], of_class: Mapping[str, Any]) -> str:
    if len(criteria) == len(of_class):
        return f"all {len(criteria)} criteria"
    names = ", ".join(criteria[:_SHOWN])
    return names + (f" and {len(criteria) - _SHOWN} more" if len(criteria) > _SHOWN else "")


def read(path: Path, written_by: str = "ascend-vlm required") -> list[Pair]:
    """The content of a required.txt.

    Args:
        path: the file.
        written_by: the command that writes it, for the message.

    Raises:
        ConfigurationError: it is not there, empty, or not of its form.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigurationError(
            f"--vlm-gate needs {path} ({why}); write it with `{written_by}`."
        ) from error
    pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#")]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ConfigurationError(
            f"{path} is no list of test class and criterion; write it with `{written_by}`."
        )
    return [(suite_class, criterion) for suite_class, criterion in pairs]


def text(directory: Path, only: Sequence[str] = (), marker: str | None = None) -> str:
    """The required.txt of the model files in a directory.

    Args:
        directory: where the model files are, at any depth; or one of them.
        only: the test classes to list; where none is named, all that are deployed on NPUs.
        marker: list the criteria of a marker that runs only where `-m` names it ("performance",
            "dataset"); None for all others.

    Raises:
        ConfigurationError: there is no model file, one cannot be imported, two classes have one
            name, or one of `only` is not among them.
    """
    from .integration.selection import ONLY_WHERE_NAMED
    from .suite.catalogue import criteria

    listed = [
        what
        for what, _, _ in criteria()
        if what.group != "reference"
        and marker == (what.group if what.group in ONLY_WHERE_NAMED else None)
    ]
    known = _suite_classes(directory)
    if unknown := [name for name in only if name not in known]:
        raise ConfigurationError(
            f"there is no class {', '.join(unknown)} in {directory}; there are {', '.join(known)}."
        )
    pairs = (
        (name, criterion)
        for name, model in known.items()
        if name in only or (not only and model.only_on in {None, "npu"})
        for what in listed
        for criterion in _ids(what, model)
    )
    return _HEAD + "".join(f"{name} {criterion}\n" for name, criterion in pairs)


def _ids(what: Criterion, model: ModelSpec) -> list[str]:
    """The ids that a criterion has on a model: its own, or one for each variant."""
    from .suite.criterion import DATASET, VARIANT

    several: Mapping[str, Sequence[Variant | DatasetTask]] = {
        VARIANT: model.variants,
        DATASET: model.datasets,
    }
    if what.id not in several:
        return [what.id]
    return [what.of(one.name).id for one in several[what.id]]


def _suite_classes(directory: Path) -> dict[str, ModelSpec]:
    """Name of each test class of the model files -> its model."""
    from .suite.conformance import VLMConformance

    home: dict[str, Path] = {}
    models: dict[str, ModelSpec] = {}
    for path in model_files_in(directory):
        for name, value in vars(_imported(path)).items():
            is_suite = isinstance(value, type) and issubclass(value, VLMConformance)
            if not is_suite or not name.startswith("Test"):
                continue
            if name in home:
                raise ConfigurationError(
                    f"{home[name]} and {path} both have a class {name}; a report tells models "
                    "apart by it, so rename one."
                )
            home[name] = path
            models[name] = value.model
    if not home:
        raise ConfigurationError(
            f"there is no model file in {directory}: no test_*.py with a class Test… that "
            "subclasses VLMConformance. Name their directory: `ascend-vlm required DIR`."
        )
    return models


def _imported(path: Path) -> Any:
    """A model file as a module; what lies beside it can be imported by it, as under pytest."""
    import pytest

    spec = importlib.util.spec_from_file_location(f"_required_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except VlmError:
        raise
    except (Exception, pytest.skip.Exception) as error:
        raise ConfigurationError(f"{path} cannot be imported: {error!r}.") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
