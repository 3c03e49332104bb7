"""The class that a model file subclasses: every mixin of the suite joined."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import pytest

from ..criteria.criterion import criteria
from ..errors import ConfigurationError
from ..integration import fixtures
from ..spec.model import ModelSpec
from .baseline import BaselineCriteria
from .dataset import DatasetCriteria
from .determinism import DeterminismCriteria
from .document import DocumentCriteria
from .equivalence import EquivalenceCriteria
from .lifecycle import LifecycleCriteria
from .numerics import NumericsCriteria
from .performance import PerformanceCriteria
from .reference import ReferenceCriteria
from .serving import ServingCriteria
from .tasks import TaskCriteria


# pytest runs the tests of the last base first: serving leads, so that a server that answers nothing
# is reported as that; what needs other engines in the server's place comes when it is gone.
class VLMConformance(
    ReferenceCriteria,
    EquivalenceCriteria,
    NumericsCriteria,
    DatasetCriteria,
    LifecycleCriteria,
    PerformanceCriteria,
    DeterminismCriteria,
    TaskCriteria,
    DocumentCriteria,
    BaselineCriteria,
    ServingCriteria,
):
    """Subclass it as `Test<Model>` and set `model`; every criterion becomes a test of that class.

    Tests of your own may be added as methods and take the same fixtures: `server`, `client`,
    `answers`, `golden` and `judge`. A criterion cannot be overridden, neither here nor by a mixin:
    a known failure is declared with `ModelSpec(expected_failures=...)`.
    """

    model: ClassVar[ModelSpec]

    @pytest.fixture(autouse=True)
    def _server_runs(self, request: pytest.FixtureRequest) -> None:
        """Starts the server again where it died in a test before, or one that needs it ended it.

        A client starts one that was ended by itself, when it asks.
        """
        if "server" in request.fixturenames:
            server = request.getfixturevalue("server")
            server.recover()
            if "server" in inspect.signature(request.function).parameters:
                server.ensure_running()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_overrides(cls)
        model = getattr(cls, "model", None)
        if not isinstance(model, ModelSpec):
            raise ConfigurationError(f"{cls.__name__}.model must be a ModelSpec.")
        _refuse_unknown_platforms(model)
        _refuse_unknown_criteria(model)
        _refuse_unknown_figures(model)


def _is_fixture(value: object) -> bool:
    # pytest has a class for them since 8.4; before, it marked the function.
    return type(value).__name__ == "FixtureFunctionDefinition" or hasattr(
        value, "_pytestfixturefunction"
    )


def _refuse_overrides(cls: type) -> None:
    ours = set(VLMConformance.__mro__)
    criteria = {name for base in ours for name in vars(base) if name.startswith("test_")}
    judged_by = {name for name, value in vars(fixtures).items() if _is_fixture(value)}
    for base in (base for base in cls.__mro__ if base not in ours):
        own = {name for name, value in vars(base).items() if _is_fixture(value)}
        overridden = sorted((criteria & vars(base).keys()) | (judged_by & own))
        if overridden:
            raise ConfigurationError(
                f"{base.__name__} overrides {', '.join(overridden)}. A criterion is the same for "
                "every model, and so is what it is judged by; declare a known failure with "
                "ModelSpec(expected_failures=...), a looser bar with "
                "Thresholds(..., because='...')."
            )


def _refuse_unknown_criteria(model: ModelSpec) -> None:
    known = {criterion.id for criterion, _ in criteria(VLMConformance)}
    for failure in model.expected_failures:
        if failure.criterion.partition("[")[0] not in known:
            raise ConfigurationError(
                f"ModelSpec({model.model_id!r}) expects {failure.criterion!r} to fail, but there "
                "is no such criterion; `ascend-vlm criteria` lists them."
            )


def _refuse_unknown_platforms(model: ModelSpec) -> None:
    from ..platforms import PLATFORMS, platform_names

    for name in model.platforms:
        if name not in PLATFORMS and name not in platform_names():
            raise ConfigurationError(
                f"ModelSpec({model.model_id!r}, platforms={model.platforms!r}): {name!r} is no "
                f"platform; there are {', '.join(platform_names())}."
            )


def _refuse_unknown_figures(model: ModelSpec) -> None:
    from ..criteria.performance import FIGURE

    for limit in model.limits:
        if not FIGURE.fullmatch(limit.figure):
            raise ConfigurationError(
                f"ModelSpec({model.model_id!r}) has a limit of {limit.figure!r}, but nothing of "
                "that name is measured; docs/performance.md lists the figures."
            )
