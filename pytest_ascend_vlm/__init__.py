"""Decides, with evidence, whether a vision-language model works on Ascend NPUs under vLLM-Ascend.

Everything that a model file and a test of your own need is importable from here; every other module
is private. Names are resolved on first use (PEP 562), so that pytest start-up of a project that
merely has the plugin installed imports next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .criteria.document import judge_characters, judge_lines, judge_numbers, judge_order
    from .criteria.tasks import judge_box, judge_question, read_box
    from .criteria.text import similarity
    from .criteria.verdict import Verdict, at_least, at_most, checklist
    from .errors import ConfigurationError, CriterionFailed, PreconditionError, ServerError
    from .observation.answers import Completion, Reference, Refusal
    from .spec.case import Capability, Case, Sampling
    from .spec.dataset import DatasetTask, PublishedScore
    from .spec.model import Budgets, ExpectedFailure, ModelSpec, Variant
    from .spec.published import Figure, Limit, Published
    from .spec.thresholds import Thresholds
    from .spec.workload import Workload
    from .suite.conformance import VLMConformance

_HOME = {
    "criteria.document": ("judge_characters", "judge_lines", "judge_numbers", "judge_order"),
    "criteria.tasks": ("judge_box", "judge_question", "read_box"),
    "criteria.text": ("similarity",),
    "criteria.verdict": ("Verdict", "at_least", "at_most", "checklist"),
    "errors": ("ConfigurationError", "CriterionFailed", "PreconditionError", "ServerError"),
    "observation.answers": ("Completion", "Reference", "Refusal"),
    "spec.case": ("Capability", "Case", "Sampling"),
    "spec.dataset": ("DatasetTask", "PublishedScore"),
    "spec.model": ("Budgets", "ExpectedFailure", "ModelSpec", "Variant"),
    "spec.published": ("Figure", "Limit", "Published"),
    "spec.thresholds": ("Thresholds",),
    "spec.workload": ("Workload",),
    "suite.conformance": ("VLMConformance",),
}
_MODULE_OF = {name: f".{module}" for module, names in _HOME.items() for name in names}

__all__ = [
    "Budgets",
    "Capability",
    "Case",
    "Completion",
    "ConfigurationError",
    "CriterionFailed",
    "DatasetTask",
    "ExpectedFailure",
    "Figure",
    "Limit",
    "ModelSpec",
    "PreconditionError",
    "Published",
    "PublishedScore",
    "Reference",
    "Refusal",
    "Sampling",
    "ServerError",
    "Thresholds",
    "VLMConformance",
    "Variant",
    "Verdict",
    "Workload",
    "at_least",
    "at_most",
    "checklist",
    "judge_box",
    "judge_characters",
    "judge_lines",
    "judge_numbers",
    "judge_order",
    "judge_question",
    "read_box",
    "similarity",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
