"""Writes a gate list from model files: the criteria that a gate requires for each test class."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..criteria.criterion import DATASET, LIMITS, VARIANT, WORKLOAD, Criterion, criteria
from ..errors import ConfigurationError, VlmError
from ..model_files import model_files_in
from ..spec.dataset import DatasetTask
from ..spec.model import ModelSpec, Variant
from ..versions import installed_vllm, unmet
from .conformance import VLMConformance

_HEAD = "# Written by `ascend-vlm gate-list`: test class and criterion that --vlm-gate must see.\n"


def text(directory: Path, only: Sequence[str] = (), marker: str | None = None) -> str:
    """The text of a gate list.

    In an environment with vLLM the list is for this environment: a class whose model needs another
    version of a package is not applicable, and a comment says so.

    Args:
        directory: a directory with model files at any depth, or one model file.
        only: the test classes to list; empty for all classes whose models are deployed on NPUs.
        marker: one of `GATE_LIST_MARKERS`, to list its criteria; None for all other criteria.

    Raises:
        ConfigurationError: there is no model file, a model file cannot be imported, two classes
            have the same name, or a class in `only` does not exist.
    """
    chosen = _chosen(directory, only)
    lacking = _lacking(chosen)
    listed = [
        criterion for criterion, _ in criteria(VLMConformance) if _list_of(criterion) == marker
    ]
    notes = (f"# {name} is not applicable here: {reason}.\n" for name, reason in lacking.items())
    pairs = (
        f"{name} {id_}\n"
        for name, model in chosen.items()
        if name not in lacking
        for criterion in listed
        for id_ in _ids(criterion, model)
    )
    return "".join([_HEAD, *notes, *pairs])


def _chosen(directory: Path, only: Sequence[str]) -> dict[str, ModelSpec]:
    """The named test classes, or all whose models are deployed on NPUs."""
    known = suite_classes(directory)
    if unknown := [name for name in only if name not in known]:
        raise ConfigurationError(
            f"there is no class {', '.join(unknown)} in {directory}. Its classes are "
            f"{', '.join(known)}."
        )
    return {
        name: model
        for name, model in known.items()
        if name in only or (not only and (not model.platforms or "npu" in model.platforms))
    }


def _lacking(chosen: Mapping[str, ModelSpec]) -> dict[str, str]:
    """Name of a test class -> what its model needs and this environment lacks.

    Raises:
        ConfigurationError: no class is left.
    """
    if installed_vllm() is None:
        return {}
    lacking = {name: reason for name, model in chosen.items() if (reason := unmet(model.requires))}
    if chosen and chosen.keys() == lacking.keys():
        raise ConfigurationError(
            "; ".join(
                f"{name} is not applicable here: {reason}" for name, reason in lacking.items()
            )
        )
    return lacking


def _list_of(criterion: Criterion) -> str | None:
    """The marker of the criterion's gate list; None for the common list, "" for no list."""
    group = criterion.group
    if not group.needs_server:
        return ""
    return group.marker if group.is_opt_in else None


def _ids(criterion: Criterion, model: ModelSpec) -> list[str]:
    """The criterion's ids for a model: its own id, or one for each variant or data set.

    There is none if the model declares nothing for the criterion to judge.
    """
    if (criterion.id, ()) in ((WORKLOAD, model.workloads), (LIMITS, model.limits)):
        return []
    declared: Mapping[str, Sequence[Variant | DatasetTask]] = {
        VARIANT: model.variants,
        DATASET: model.datasets,
    }
    if criterion.id not in declared:
        return [criterion.id]
    return [criterion.of(one.name).id for one in declared[criterion.id]]


def suite_classes(directory: Path) -> dict[str, ModelSpec]:
    """Name of each test class in the model files -> its model.

    Args:
        directory: a directory with model files at any depth, or one model file.

    Raises:
        ConfigurationError: there is no model file, a model file cannot be imported, or two classes
            have the same name.
    """
    file_of: dict[str, Path] = {}
    models: dict[str, ModelSpec] = {}
    for path in model_files_in(directory):
        for name, value in vars(_imported(path)).items():
            is_suite = isinstance(value, type) and issubclass(value, VLMConformance)
            if not is_suite or not name.startswith("Test"):
                continue
            if name in file_of:
                raise ConfigurationError(
                    f"{file_of[name]} and {path} both have a class {name}. A report identifies a "
                    "model by its class, so rename one of them."
                )
            file_of[name] = path
            models[name] = value.model
    if not file_of:
        raise ConfigurationError(
            f"there is no model file in {directory}: no test_*.py with a class Test… that "
            "subclasses VLMConformance. Name the directory of the model files: "
            "`ascend-vlm gate-list DIR`, or `ascend-vlm doctor DIR`."
        )
    return models


def _imported(path: Path) -> Any:
    """Imports a model file. As under pytest, it may import modules from its own directory."""
    import pytest

    spec = importlib.util.spec_from_file_location(f"_model_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except VlmError:
        raise
    except (Exception, SystemExit, pytest.skip.Exception) as error:
        raise ConfigurationError(f"{path} cannot be imported: {error!r}.") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
