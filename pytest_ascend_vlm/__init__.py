"""Decides, with evidence, whether a vision-language model works on Ascend NPUs under vLLM-Ascend.

What a model file needs is importable from here. Names are resolved on first use (PEP 562), so that
pytest start-up of a project that merely has the plugin installed imports next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .criteria.verdict import Verdict
    from .spec.dataset import DatasetTask, PublishedScore
    from .spec.model import (
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
    "Budgets": ".spec.model",
    "Capability": ".spec.model",
    "Case": ".spec.model",
    "DatasetTask": ".spec.dataset",
    "PublishedScore": ".spec.dataset",
    "ExpectedFailure": ".spec.model",
    "Figure": ".spec.model",
    "Limit": ".spec.model",
    "ModelSpec": ".spec.model",
    "Published": ".spec.model",
    "Sampling": ".spec.model",
    "Thresholds": ".spec.model",
    "Variant": ".spec.model",
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
