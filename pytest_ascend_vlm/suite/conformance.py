"""The class that a model file subclasses: every mixin of the suite joined."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..criteria.criterion import criteria
from ..criteria.groups import OWN_GROUP, group_name
from ..errors import ConfigurationError
from ..integration import fixtures
from ..spec.model import ModelSpec
from .baseline import BaselineCriteria
from .dataset import DatasetCriteria
from .determinism import DeterminismCriteria
from .document import DocumentCriteria
from .equivalence import EquivalenceCriteria
from .formats import FormatCriteria
from .grid import GridCriteria
from .growth import GrowthCriteria
from .ladder import LadderCriteria
from .lifecycle import LifecycleCriteria
from .numerics import NumericsCriteria
from .parameters import ParameterCriteria
from .performance import PerformanceCriteria
from .preemption import PreemptionCriteria
from .recovery import RecoveryCriteria
from .reference import ReferenceCriteria
from .serving import ServingCriteria
from .tasks import TaskCriteria


# pytest runs the tests of the last base first. Serving runs first, so that a server without any
# answer is reported as such. Criteria that replace the server by other engines run last.
class VLMConformance(
    ReferenceCriteria,
    EquivalenceCriteria,
    PreemptionCriteria,
    NumericsCriteria,
    DatasetCriteria,
    LifecycleCriteria,
    RecoveryCriteria,
    GrowthCriteria,
    GridCriteria,
    PerformanceCriteria,
    LadderCriteria,
    ParameterCriteria,
    DeterminismCriteria,
    TaskCriteria,
    DocumentCriteria,
    BaselineCriteria,
    FormatCriteria,
    ServingCriteria,
):
    """The base class of a model's tests: subclass it as `Test<Model>` and set `model`.

    Every criterion becomes a test of the subclass. You may add tests of your own as methods. They
    may use the same fixtures: `server`, `client`, `answers`, `golden` and `judge`. Neither the
    subclass nor a mixin can override a criterion. Declare a known failure with
    `ModelSpec(expected_failures=...)`.
    """

    model: ClassVar[ModelSpec]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_overrides(cls)
        model = getattr(cls, "model", None)
        if not isinstance(model, ModelSpec):
            raise ConfigurationError(f"{cls.__name__}.model must be a ModelSpec.")
        _refuse_unknown_platforms(model)
        _refuse_unknown_criteria(model)
        _refuse_unknown_figures(model)


def _fixture_names(namespace: Mapping[str, object]) -> set[str]:
    """The names of the fixtures that a class or module defines."""
    return {
        # `@pytest.fixture(name=...)` gives it another name than the function's.
        getattr(marker, "name", None) or name
        for name, value in namespace.items()
        if (marker := _fixture_marker(value)) is not None
    }


def _fixture_marker(value: object) -> object | None:
    # Since pytest 8.4 a fixture is an object of this class; before, it was a marked function.
    if type(value).__name__ == "FixtureFunctionDefinition":
        return value
    return getattr(value, "_pytestfixturefunction", None)


def _refuse_overrides(cls: type) -> None:
    suite = set(VLMConformance.__mro__)
    criteria = {name for base in suite for name in vars(base) if name.startswith("test_")}
    suite_fixtures = _fixture_names(vars(fixtures))
    for base in (base for base in cls.__mro__ if base not in suite):
        own = _fixture_names(vars(base))
        overridden = sorted((criteria & vars(base).keys()) | (suite_fixtures & own))
        if overridden:
            raise ConfigurationError(
                f"{base.__name__} overrides {', '.join(overridden)}. The criteria and their "
                "fixtures are the same for every model. Declare a known failure with "
                "ModelSpec(expected_failures=...), a looser threshold with "
                "Thresholds(..., because='...')."
            )


def _refuse_unknown_criteria(model: ModelSpec) -> None:
    known = {criterion.id for criterion, _ in criteria(VLMConformance)}
    for failure in model.expected_failures:
        if group_name(failure.criterion) == OWN_GROUP:
            raise ConfigurationError(
                f"ModelSpec({model.model_id!r}) expects {failure.criterion!r} to fail. That is a "
                "test of your own: mark it with @pytest.mark.xfail(reason='...')."
            )
        if failure.criterion.partition("[")[0] not in known:
            raise ConfigurationError(
                f"ModelSpec({model.model_id!r}) expects {failure.criterion!r} to fail, but there "
                "is no such criterion. `ascend-vlm criteria` lists all criteria."
            )


def _refuse_unknown_platforms(model: ModelSpec) -> None:
    from ..platforms import is_platform, platform_names

    for name in model.platforms:
        if not is_platform(name):
            raise ConfigurationError(
                f"ModelSpec({model.model_id!r}, platforms={model.platforms!r}): {name!r} is no "
                f"platform. The platforms are {', '.join(platform_names())}."
            )


def _refuse_unknown_figures(model: ModelSpec) -> None:
    from ..criteria.offline_load import STATISTICS
    from ..criteria.performance import FIGURE, WORKLOAD

    declared = {workload.name: workload for workload in model.workloads}
    figures = (one for one in (model.published.figures if model.published else ()) if one.workload)
    used = (
        *(("a limit", limit.metric) for limit in model.limits),
        *(("a figure", f"{WORKLOAD}{one.workload}.{one.statistic}") for one in figures),
    )
    for what, metric in used:
        name, _, statistic = metric.removeprefix(WORKLOAD).partition(".")
        workload = declared.get(name)
        if workload and workload.is_offline:
            is_measured = STATISTICS[workload.tool].fullmatch(statistic)
        else:
            is_measured = FIGURE.fullmatch(metric)
        is_declared = workload or not metric.startswith(WORKLOAD)
        if not is_measured or not is_declared:
            raise ConfigurationError(
                f"ModelSpec({model.model_id!r}) has {what} of {metric!r}, but no metric has that "
                "name. docs/performance.md lists the metrics; a workload is declared in workloads."
            )
