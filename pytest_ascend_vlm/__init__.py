"""Decides, with evidence, whether a vision-language model works on Ascend NPUs under vLLM-Ascend.

What a model file needs is importable from here. Names are resolved on first use (PEP 562), so that
pytest start-up of a project that merely has the plugin installed imports next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .criteria.verdict import Verdict
    from .dataset_task import DatasetTask, PublishedScore
    from .spec import (
        Budgets,
        Capability,
        Case,
        ExpectedFailure,
        Figure,
        Limit,
        ModelSpec,
        Published,
        Sampling,
        Thresholds,
        Variant,
    )
    from .suite.conformance import VLMConformance

_HOME = {
    "Budgets": ".spec",
    "Capability": ".spec",
    "Case": ".spec",
    "DatasetTask": ".dataset_task",
    "PublishedScore": ".dataset_task",
    "ExpectedFailure": ".spec",
    "Figure": ".spec",
    "Limit": ".spec",
    "ModelSpec": ".spec",
    "Published": ".spec",
    "Sampling": ".spec",
    "Thresholds": ".spec",
    "Variant": ".spec",
    "Verdict": ".criteria.verdict",
    "VLMConformance": ".suite.conformance",
}

__all__ = [
    "Budgets",
    "Capability",
    "Case",
    "DatasetTask",
    "ExpectedFailure",
    "Figure",
    "Limit",
    "ModelSpec",
    "Published",
    "PublishedScore",
    "Sampling",
    "Thresholds",
    "VLMConformance",
    "Variant",
    "Verdict",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
