"""Checks the prompts of model files at collection, when the cases of the project are known."""

from __future__ import annotations

import pytest

from ..session.run import Run
from ..spec.model import ModelSpec


def problem(collector: pytest.Collector, run: Run) -> str | None:
    """The prompts of a test class's model that no case asks for, or None."""
    model = getattr(getattr(collector, "obj", None), "model", None)
    if not isinstance(model, ModelSpec) or not model.prompts:
        return None
    groups = sorted({case.group for case in run.cases})
    known = {*groups, *(case.id for case in run.cases)}
    if not (unknown := sorted(model.prompts.keys() - known)):
        return None
    return (
        f"{collector.nodeid}: prompts has {', '.join(unknown)}, and no case has that group or id. "
        f"The groups are {', '.join(groups)}."
    )
