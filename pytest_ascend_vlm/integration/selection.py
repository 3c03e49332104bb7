"""Which tests run: cases per criterion, what applies to a model, what can run here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from ..criteria.criterion import DATASET, VARIANT, Criterion
from ..errors import CriterionFailed
from ..session.model import ModelSession
from ..session.run import RUN, Run
from ..spec.case import Case
from ..spec.model import ExpectedFailure, ModelSpec
from .criterion_call import CriterionCall, call_of, declared_criterion
from .expressions import asks_for

NOT_APPLICABLE = pytest.StashKey[str]()
"""Why a criterion does not apply to the model of its test."""

EXPECTED_FAILURES = pytest.StashKey[tuple[ExpectedFailure, ...]]()
"""The failures that are declared of the criterion of a test."""


def parametrize(metafunc: pytest.Metafunc, run: Run) -> None:
    """Gives a criterion its cases; without any it stays one test, which `mark` then explains."""
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
    if criterion.cases is None:
        return
    cases: tuple[Case | None, ...] = ModelSession(run, model).declared_cases(criterion.cases)
    if criterion.needs not in model.supports or not cases:
        cases = (None,)
    metafunc.parametrize("case", cases, ids=[case.id if case else "no-case" for case in cases])


COLLECTED = pytest.StashKey[Sequence[pytest.Item]]()
"""The tests as they were collected, before any was left out."""


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what was not asked for; marks what does not apply or cannot run here."""
    run = config.stash[RUN]
    config.stash[COLLECTED] = list(items)
    kept = [item for item in items if is_asked_for(item, config)]
    removed = [item for item in items if item not in set(kept)]
    if removed:
        config.hook.pytest_deselected(items=removed)
        items[:] = kept
    server_ends_last(items)
    for item in items:
        mark(item, run)


def let_names_select(item: pytest.Item) -> None:
    """Lets `-k` select a criterion by the names that messages and reports give it.

    `baseline`, `baseline.image` and `baseline.image[document/page-04]` are parts of one keyword.
    """
    if name := call_of(item).name:
        item.extra_keyword_matches.add(name)


def is_asked_for(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test belongs to the run at all.

    The criteria of an opt-in group run where `-m` names their marker. With `--vlm-record` only the
    reference does, and what records scores of data sets.
    """
    if config.getoption("vlm_record") and item.get_closest_marker("dataset") is None:
        return item.get_closest_marker("cpu_baseline") is not None
    criterion = call_of(item).criterion
    if criterion is None or not criterion.group.is_opt_in:
        return True
    return is_named(criterion.group.marker, config)


def is_named(marker: str, config: pytest.Config) -> bool:
    """Whether `-m` asks for a marker, and not merely for all but it."""
    return asks_for(marker, config.getoption("markexpr"))


def fixtures_of(items: Iterable[pytest.Item]) -> set[str]:
    """The names of the fixtures that tests will take; those that are skipped take none."""
    running = (item for item in items if item.get_closest_marker("skip") is None)
    return {name for item in running for name in getattr(item, "fixturenames", ())}


def server_ends_last(items: list[pytest.Item]) -> None:
    """Puts what ends a model's server behind the model's other tests, those of its file included.

    A server that was killed too early is started again, which takes its time.
    """
    last: dict[type | None, int] = {}
    for index, item in enumerate(items):
        call = call_of(item)
        if call.suite_class is not None and not _ends_server(call):
            last[call.suite_class] = index

    def place(numbered: tuple[int, pytest.Item]) -> tuple[int, bool]:
        # What ends the server takes the index of the last test that does not, and follows it:
        # False sorts before True.
        index, call = numbered[0], call_of(numbered[1])
        ends = _ends_server(call)
        return last.get(call.suite_class, index) if ends else index, ends

    items[:] = [item for _, item in sorted(enumerate(items), key=place)]


def _ends_server(call: CriterionCall) -> bool:
    return call.criterion is not None and call.criterion.ends_server


def mark(item: pytest.Item, run: Run) -> None:
    """Marks a test as not applicable, not runnable here, or expected to fail."""
    call = call_of(item)
    session = ModelSession(run, call.model) if call.model else None
    if session is not None and "server" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.npu)  # a test of the user's own that needs the served model
    if session and call.criterion and (reason := _not_applicable_reason(call, session)):
        item.stash[NOT_APPLICABLE] = reason
        item.add_marker(pytest.mark.skip(reason=f"not applicable: {reason}"))
    elif item.get_closest_marker("npu") and (reason := _cannot_run_reason(call, session, run)):
        item.add_marker(pytest.mark.skip(reason=reason))
    if session and call.criterion:
        _expect_failures(item, call.criterion, session.model)


def _cannot_run_reason(call: CriterionCall, session: ModelSession | None, run: Run) -> str | None:
    if run.unavailable_reason or session is None:
        return run.unavailable_reason
    if call.variant is None:
        return session.lacks_cards_reason
    if run.options.server_url is not None:
        return "another way to serve needs a server that the suite starts"
    return session.variant(call.variant).lacks_cards_reason


def _not_applicable_reason(call: CriterionCall, session: ModelSession) -> str | None:
    criterion, model, platform = call.criterion, session.model, session.run.options.platform
    assert criterion is not None  # noqa: S101  (asked of criteria alone)
    if model.platforms and platform not in {*model.platforms, "endpoint"}:
        return f"the model is deployed on the platform {' or '.join(model.platforms)} alone"
    if session.lacks_checkpoint:
        return "no tiny checkpoint; another model of its family stands for the architecture"
    if criterion.needs in model.unsupported:
        return (
            f"{criterion.needs.value} is declared unsupported: {model.unsupported[criterion.needs]}"
        )
    if call.declared and call.declared.id == VARIANT:
        variant = call.variant
        none = "ModelSpec.variants declares none"
        return session.variant_not_applicable_reason(variant) if variant else none
    if call.declared and call.declared.id == DATASET:
        return _dataset_not_applicable_reason(call, session)
    return None if criterion.cases is None else _case_reason(call, session)


def _dataset_not_applicable_reason(call: CriterionCall, session: ModelSession) -> str | None:
    options = session.run.options
    if call.task is None:
        return "ModelSpec.datasets declares none"
    if options.checkpoint == "tiny" and options.datasets_root is None:
        return "a tiny checkpoint knows none of the published questions"
    return None


def _case_reason(call: CriterionCall, session: ModelSession) -> str | None:
    case, criterion = call.case, call.criterion
    if case is None:
        group = criterion.cases.value if criterion and criterion.cases else ""
        return f"no case of the group {group!r}"
    reason = session.untaught_reason(case)
    return f"the tiny checkpoint was not taught {case.id}: {reason}" if reason else None


def _expect_failures(item: pytest.Item, criterion: Criterion, model: ModelSpec) -> None:
    names = {criterion.id, call_of(item).name}
    declared = [one for one in model.expected_failures if one.criterion in names]
    known = [one for one in criterion.known_failures if one.criterion in names]
    item.stash[EXPECTED_FAILURES] = (*declared, *known)
    for failure in (*declared, *known):
        # A known failure of released engines may be mended in this one; a declared one has to fail.
        strict = failure in declared
        reason = str(failure)
        item.add_marker(pytest.mark.xfail(strict=strict, raises=CriterionFailed, reason=reason))
