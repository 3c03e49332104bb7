"""Parametrizes, selects, orders and marks the tests of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from ..criteria.criterion import DATASET, LIMITS, VARIANT, WORKLOAD, Criterion
from ..criteria.limits import PROPOSE_LIMITS
from ..errors import CriterionFailed, PromptDiffers
from ..session.model import ModelSession
from ..session.run import RUN, Run
from ..spec.case import Case
from ..spec.model import ExpectedFailure, ModelSpec
from ..spec.request_rows import REQUEST_ROWS, rows_of
from .criterion_call import CriterionCall, call_of, declared_criterion
from .expressions import asks_for
from .weights import require_known

NOT_APPLICABLE = pytest.StashKey[str]()
"""Reason why the criterion of a test does not apply to its model."""

EXPECTED_FAILURES = pytest.StashKey[tuple[ExpectedFailure, ...]]()
"""The expected failures that are declared for the criterion of a test."""


def parametrize(metafunc: pytest.Metafunc, run: Run) -> None:
    """Parametrizes a criterion with its cases, variants, data sets, workloads or requests.

    A criterion without cases stays one test, which `mark` then marks as not applicable.
    """
    criterion = declared_criterion(metafunc.definition)
    if criterion is None or metafunc.cls is None:
        return
    model: ModelSpec = metafunc.cls.model
    if criterion.id == VARIANT:
        variants = model.variants or (None,)
        names = [variant.name if variant else "no-variant" for variant in variants]
        metafunc.parametrize("variant", variants, ids=names)
    if criterion.id == DATASET:
        tasks = model.datasets or (None,)
        names = [task.name if task else "no-task" for task in tasks]
        metafunc.parametrize("task", tasks, ids=names)
    if criterion.id == WORKLOAD:
        workloads = model.workloads or (None,)
        names = [workload.name if workload else "no-workload" for workload in workloads]
        metafunc.parametrize("workload", workloads, ids=names)
    if criterion.id in REQUEST_ROWS:
        metafunc.parametrize("row", rows_of(criterion.id, model.expected_failures))
    if criterion.cases is None:
        return
    cases: tuple[Case | None, ...] = ModelSession(run, model).declared_cases(criterion.cases)
    if criterion.needs not in model.supports or not cases:
        cases = (None,)
    metafunc.parametrize("case", cases, ids=[case.id if case else "no-case" for case in cases])


COLLECTED = pytest.StashKey[Sequence[pytest.Item]]()
"""The collected tests, before any was deselected."""


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests that were not asked for; marks those that do not apply or cannot run.

    Raises:
        pytest.UsageError: `--vlm-weights` names a model that was not collected.
    """
    run = config.stash[RUN]
    config.stash[COLLECTED] = list(items)
    require_known(config, items)
    asked_for = {item: is_asked_for(item, config) for item in items}
    if removed := [item for item in items if not asked_for[item]]:
        config.hook.pytest_deselected(items=removed)
        items[:] = [item for item in items if asked_for[item]]
    server_ends_last(items)
    for item in items:
        mark(item, run)


def settle(items: Sequence[pytest.Item], run: Run) -> None:
    """Notes the models of the tests that are left after `-k` and `-m`.

    Raises:
        pytest.UsageError: this environment lacks packages that each of these models needs.
    """
    require_packages(items, run)
    run.selected = frozenset(
        model.model_id
        for item in items
        if "device_slot" in fixtures_of([item]) and (model := call_of(item).model) is not None
    )


def require_packages(items: Sequence[pytest.Item], run: Run) -> None:
    """Requires that some model of the run can be loaded here, or on a host of the cluster.

    In a run of several models, those that lack a package are not applicable.

    Raises:
        pytest.UsageError: packages are lacking that each of these models needs.
    """
    models = {call.suite_class: call.model for call in map(call_of, items)}.values()
    reasons = [run.lacks_packages_reason(one) if one else None for one in models]
    if reasons and all(reasons):
        lines = (f"{one.model_id}: {why}" for one, why in zip(models, reasons, strict=True) if one)
        raise pytest.UsageError("\n".join(["nothing can be judged here:", *lines]))


def let_names_select(item: pytest.Item) -> None:
    """Lets `-k` select a criterion by its id, as messages and reports show it.

    `baseline`, `baseline.image` and `baseline.image[document/page-04]` all select: `-k` matches
    substrings of this keyword.
    """
    if name := call_of(item).name:
        item.extra_keyword_matches.add(name)


def is_asked_for(item: pytest.Item, config: pytest.Config) -> bool:
    """True if a test belongs to the run.

    The criteria of an opt-in group run only if `-m` names their marker. With `--vlm-record` only
    the reference criteria and the data sets run.
    """
    if config.getoption("vlm_record") and item.get_closest_marker("dataset") is None:
        return item.get_closest_marker("cpu_baseline") is not None
    criterion = call_of(item).criterion
    if criterion is None or not criterion.group.is_opt_in:
        return True
    return is_named(criterion.group.marker, config)


def is_named(marker: str, config: pytest.Config) -> bool:
    """True if `-m` asks for a marker, and does not only exclude others."""
    return asks_for(marker, config.getoption("markexpr"))


def fixtures_of(items: Iterable[pytest.Item]) -> set[str]:
    """The names of the fixtures that tests request; skipped tests request none."""
    running = (item for item in items if item.get_closest_marker("skip") is None)
    return {name for item in running for name in getattr(item, "fixturenames", ())}


def server_ends_last(items: list[pytest.Item]) -> None:
    """Moves the tests that stop or kill a model's server behind the class's other tests.

    The user's own tests of the class are included. Otherwise the server would have to start again
    for the tests that follow.
    """
    last_use = {
        call_of(item).suite_class: index
        for index, item in enumerate(items)
        if not _ends_server(item)
    }

    def sort_key(numbered: tuple[int, pytest.Item]) -> tuple[int, int]:
        index, item = numbered
        if not _ends_server(item):
            return index, 0
        return last_use.get(call_of(item).suite_class, index), 1

    items[:] = [item for _, item in sorted(enumerate(items), key=sort_key)]


def _ends_server(item: pytest.Item) -> bool:
    criterion = call_of(item).criterion
    return criterion is not None and criterion.ends_server


def mark(item: pytest.Item, run: Run) -> None:
    """Marks a test as not applicable, as skipped because it cannot run, or as expected to fail."""
    call = call_of(item)
    session = ModelSession(run, call.model) if call.model else None
    fixtures = getattr(item, "fixturenames", ())
    if session is not None and "server" in fixtures:
        item.add_marker(pytest.mark.npu)  # treats a user's own test of the server like a criterion
    uses_model = call.criterion or "model_session" in fixtures
    if session and uses_model and (reason := _not_applicable_reason(call, session)):
        item.stash[NOT_APPLICABLE] = reason
        item.add_marker(pytest.mark.skip(reason=f"not applicable: {reason}"))
    elif item.get_closest_marker("npu") and (reason := _cannot_run_reason(call, session, run)):
        item.add_marker(pytest.mark.skip(reason=reason))
    if session and call.criterion:
        _expect_failures(item, call.criterion, session)


def _cannot_run_reason(call: CriterionCall, session: ModelSession | None, run: Run) -> str | None:
    if run.unavailable_reason or session is None:
        return run.unavailable_reason
    if call.variant is None:
        return session.lacks_cards_reason
    if run.options.server_url is not None:
        return "a variant needs a server started by the suite; remove --vlm-server-url"
    return session.variant(call.variant).lacks_cards_reason


def _not_applicable_reason(call: CriterionCall, session: ModelSession) -> str | None:
    criterion, model = call.criterion, session.model
    reason = _model_reason(session)
    if reason or criterion is None:
        return reason
    if criterion.needs in model.unsupported:
        return (
            f"{criterion.needs.value} is declared unsupported: {model.unsupported[criterion.needs]}"
        )
    if reason := _undeclared_reason(call, session):
        return reason
    return None if criterion.cases is None else _case_reason(call, session)


def _undeclared_reason(call: CriterionCall, session: ModelSession) -> str | None:
    """Reason why a criterion has nothing to judge that the model file declares, or None."""
    declared, model = call.declared, session.model
    if declared and declared.id == VARIANT:
        variant, empty = call.variant, "ModelSpec.variants is empty"
        return session.variant_not_applicable_reason(variant) if variant else empty
    if declared and declared.id == DATASET:
        return _dataset_not_applicable_reason(call, session)
    if declared and declared.id == WORKLOAD and not model.workloads:
        return "ModelSpec.workloads is empty"
    if declared and declared.id == LIMITS and not model.limits:
        return f"ModelSpec.limits is empty. {PROPOSE_LIMITS}"
    return None


def _model_reason(session: ModelSession) -> str | None:
    """Reason why nothing is applicable to the model here, or None."""
    if reason := session.run.lacks_packages_reason(session.model):
        return reason
    platforms = session.model.platforms
    if platforms and session.run.options.platform not in {*platforms, "endpoint"}:
        return f"the model is declared for the platform {' or '.join(platforms)} only"
    if session.lacks_checkpoint:
        return "no tiny checkpoint; another model of its family covers the architecture"
    return None


def _dataset_not_applicable_reason(call: CriterionCall, session: ModelSession) -> str | None:
    options = session.run.options
    if call.task is None:
        return "ModelSpec.datasets is empty"
    if options.checkpoint == "tiny" and options.datasets_root is None:
        return "a tiny checkpoint cannot answer the published questions"
    return None


def _case_reason(call: CriterionCall, session: ModelSession) -> str | None:
    case, criterion = call.case, call.criterion
    if case is None:
        group = criterion.cases.value if criterion and criterion.cases else ""
        return f"the model has no case of the group {group!r}"
    if reason := session.unasked_reason(case):
        return reason
    reason = None if criterion and criterion.untaught else session.untaught_reason(case)
    return f"the tiny checkpoint was not taught {case.id}: {reason}" if reason else None


def _expect_failures(item: pytest.Item, criterion: Criterion, session: ModelSession) -> None:
    names = {criterion.id, call_of(item).name}
    kinds = {"", session.run.options.checkpoint}
    every = (*session.model.expected_failures, *criterion.known_failures)
    item.stash[EXPECTED_FAILURES] = tuple(
        one for one in every if one.criterion in names and one.checkpoint in kinds
    )
    for failure in item.stash[EXPECTED_FAILURES]:
        # Not strict: `outcomes` decides what must fail, because that depends on the engine.
        known = pytest.mark.xfail(
            raises=(CriterionFailed, PromptDiffers), reason=str(failure), strict=False
        )
        item.add_marker(known)
