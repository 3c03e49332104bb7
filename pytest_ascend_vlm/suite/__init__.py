"""The criteria as pytest tests: one mixin per concern, joined in `VLMConformance`."""

from __future__ import annotations

from typing import Any, ClassVar

from ..errors import ConfigurationError
from ..spec import ModelSpec
from .baseline import BaselineCriteria
from .determinism import DeterminismCriteria
from .document import DocumentCriteria
from .reference import ReferenceCriteria
from .serving import ServingCriteria

__all__ = ["VLMConformance"]


class VLMConformance(
    ServingCriteria, BaselineCriteria, DocumentCriteria, DeterminismCriteria, ReferenceCriteria
):
    """Subclass it as `Test<Model>` and set `model`; every criterion becomes a test of that class.

    Tests of your own may be added as methods and take the same fixtures: `server`, `client`,
    `answers`, `golden` and `judge`. A criterion cannot be overridden, neither here nor by a mixin:
    a known failure is declared with `ModelSpec(expected_failures=...)`.
    """

    model: ClassVar[ModelSpec]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_overrides(cls)
        if not isinstance(getattr(cls, "model", None), ModelSpec):
            raise ConfigurationError(f"{cls.__name__}.model must be a ModelSpec.")


def _refuse_overrides(cls: type) -> None:
    ours = set(VLMConformance.__mro__)
    criteria = {name for base in ours for name in vars(base) if name.startswith("test_")}
    for base in (base for base in cls.__mro__ if base not in ours):
        overridden = sorted(criteria & vars(base).keys())
        if overridden:
            raise ConfigurationError(
                f"{base.__name__} overrides {', '.join(overridden)}. A criterion is the same for "
                "every model; declare a known failure with ModelSpec(expected_failures=...), a "
                "looser bar with Thresholds(..., because='...')."
            )
