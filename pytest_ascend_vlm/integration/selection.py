"""Which tests run: cases per criterion, what applies to a model, what can run here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ..criteria.text import side_by_side
from ..errors import ConfigurationError, CriterionFailed
from ..session.run import Run
from ..spec.dataset import DatasetTask
from ..spec.model import Case, ExpectedFailure, ModelSpec, Variant
from ..suite.criterion import DATASET, VARIANT, Criterion
from .expressions import asks_for

NOT_APPLICABLE = pytest.StashKey[str]()
"""Why a criterion does not apply to the model of its test."""

EXPECTED_FAILURES = pytest.StashKey[tuple[ExpectedFailure, ...]]()
"""The failures that are declared of the criterion of a test."""

ONLY_WHERE_NAMED = ("cpu_baseline", "performance", "dataset")
_RUNS = 3


def criterion_of(item: pytest.Item) -> Criterion | None:
    """The criterion a test judges, None for a user's own test."""
    marker = item.get_closest_marker("vlm_criterion")
    if marker is None:
        return None
    what: Criterion = marker.args[0]
    of = variant_of(item) or task_of(item)
    return what.of(of.name) if of else what


def variant_of(item: pytest.Item) -> Variant | None:
    """The variant that a test serves."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("variant") if callspec is not None else None


def task_of(item: pytest.Item) -> DatasetTask | None:
    """The data set that a test asks."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("task") if callspec is not None else None


def model_of(item: pytest.Item) -> ModelSpec | None:
    """The model of the test's class."""
    model = getattr(_cls(item), "model", None)
    return model if isinstance(model, ModelSpec) else None


def pair_of(item: pytest.Item) -> tuple[str, str] | None:
    """The test class and the criterion of a test, as a gate lists them; None for another test."""
    what, cls = criterion_of(item), _cls(item)
    return (cls.__name__, what.id) if what is not None and cls is not None else None


def parametrize(metafunc: pytest.Metafunc, run: Run) -> None:
    """Gives a criterion its cases; without any it stays one test, which `mark` then explains."""
    what = criterion_of(metafunc.definition)
    if what is None or metafunc.cls is None:
        return
    if what.id == VARIANT:
        variants = metafunc.cls.model.variants or (None,)
        names = [variant.name if variant else "no-variant" for variant in variants]
        metafunc.parametrize("variant", variants, ids=names)
    if what.id == DATASET:
        tasks = metafunc.cls.model.datasets or (None,)
        metafunc.parametrize(
            "task", tasks, ids=[task.name if task else "no-task" for task in tasks]
        )
    if what.cases is None:
        return
    cases: tuple[Case | None, ...] = run.declared_cases(metafunc.cls.model, what.cases)
    if what.needs not in metafunc.cls.model.supports or not cases:
        cases = (None,)
    ids = [case.id if case else "no-case" for case in cases]
    metafunc.parametrize("case", cases, ids=ids)


def let_names_select(item: pytest.Item) -> None:
    """Lets `-k` select a criterion by the names that messages and reports give it.

    `baseline`, `baseline.image` and `baseline.image[document/page-04]` are parts of one keyword.
    """
    what = criterion_of(item)
    if what is not None:
        callspec = getattr(item, "callspec", None)
        item.extra_keyword_matches.add(f"{what.id}[{callspec.id}]" if callspec else what.id)


def is_asked_for(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test belongs to the run at all.

    The reference engine is slow and needs no device, and speed is measured on a host that does
    nothing else: each runs where `-m` names it. With `--vlm-record` only the reference does.
    """
    if config.getoption("vlm_record") and item.get_closest_marker("dataset") is None:
        return item.get_closest_marker("cpu_baseline") is not None
    return all(
        is_named(marker, config)
        for marker in ONLY_WHERE_NAMED
        if criterion_of(item) is not None and item.get_closest_marker(marker) is not None
    )


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
    last = {
        _cls(item): index
        for index, item in enumerate(items)
        if _cls(item) is not None and not _ends_server(item)
    }

    def place(numbered: tuple[int, pytest.Item]) -> tuple[int, bool]:
        # False sorts before True: what ends the server follows the item whose index it takes.
        index, item = numbered
        ends = _ends_server(item)
        return last.get(_cls(item), index) if ends else index, ends

    items[:] = [item for _, item in sorted(enumerate(items), key=place)]


def _ends_server(item: pytest.Item) -> bool:
    what = criterion_of(item)
    return what is not None and what.ends_server


def _cls(item: pytest.Item) -> type | None:
    return getattr(item, "cls", None)


def mark(item: pytest.Item, run: Run) -> None:
    """Marks a test as not applicable, not runnable here, or expected to fail."""
    what, model = criterion_of(item), model_of(item)
    if model is not None and "server" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.npu)  # a test of the user's own that needs the served model
    if what and model and (reason := _not_applicable(item, what, model, run)):
        item.stash[NOT_APPLICABLE] = reason
        item.add_marker(pytest.mark.skip(reason=f"not applicable: {reason}"))
    elif reason := _cannot_run(item, model, run):
        item.add_marker(pytest.mark.skip(reason=reason))
    if what is None or model is None:
        return
    for failure in _matching(model.expected_failures, item, what):
        _expect(item, failure, strict=True)
    for failure in _matching(what.known_failures, item, what):
        _expect(item, failure, strict=False)


def _cannot_run(item: pytest.Item, model: ModelSpec | None, run: Run) -> str | None:
    if item.get_closest_marker("npu") is None:
        return None
    if run.unavailable or model is None:
        return run.unavailable
    variant = variant_of(item)
    if variant is not None and run.options.server_url is not None:
        return "another way to serve needs a server of our own"
    return run.lacks_cards(model.as_variant(variant) if variant else model)


def _not_applicable(item: pytest.Item, what: Criterion, model: ModelSpec, run: Run) -> str | None:
    if model.only_on and run.options.platform not in {model.only_on, "endpoint"}:
        return f"the model is deployed so on the platform {model.only_on} alone"
    if run.lacks_checkpoint(model):
        return "no tiny checkpoint; another model of its family stands for the architecture"
    if what.needs in model.unsupported:
        return f"{what.needs.value} is declared unsupported: {model.unsupported[what.needs]}"
    if what.group == "equivalence":
        variant = variant_of(item)
        return run.same_here(model, variant) if variant else "ModelSpec.variants declares none"
    if what.group == "dataset":
        return _data_says_nothing(item, run)
    return None if what.cases is None else _case_problem(item, what.cases, model, run)


def _data_says_nothing(item: pytest.Item, run: Run) -> str | None:
    if task_of(item) is None:
        return "ModelSpec.datasets declares none"
    if run.options.checkpoint == "tiny" and run.options.datasets_root is None:
        return "a tiny checkpoint knows none of the published questions"
    return None


def _case_problem(item: pytest.Item, group: str, model: ModelSpec, run: Run) -> str | None:
    case = item.callspec.params["case"]  # type: ignore[attr-defined]
    if case is None:
        return f"no case of the group {group!r}"
    reason = run.untaught(model, case)
    return f"the tiny checkpoint was not taught {case.id}: {reason}" if reason else None


def _matching(
    failures: Iterable[ExpectedFailure], item: pytest.Item, what: Criterion
) -> Iterable[ExpectedFailure]:
    callspec = getattr(item, "callspec", None)
    names = {what.id, f"{what.id}[{callspec.id}]"} if callspec else {what.id}
    return (failure for failure in failures if failure.criterion in names)


def _expect(item: pytest.Item, failure: ExpectedFailure, *, strict: bool) -> None:
    item.stash[EXPECTED_FAILURES] = (*item.stash.get(EXPECTED_FAILURES, ()), failure)
    item.add_marker(pytest.mark.xfail(strict=strict, raises=CriterionFailed, reason=str(failure)))


def repeat_if_marked(item: pytest.Function) -> object | None:
    """Runs a user's own test marked `determinism` several times and compares what it returns.

    Returns:
        True if the test was run here, None if pytest is to run it.
    """
    marker = item.get_closest_marker("determinism")
    if marker is None or criterion_of(item) is not None:
        return None
    runs = marker.kwargs.get("runs", marker.args[0] if marker.args else _RUNS)
    if runs < 2:
        raise ConfigurationError(f"{item.nodeid}: determinism(runs={runs}) compares nothing.")
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
    texts = [_text(item.obj(**arguments), item) for _ in range(runs)]
    for index, text in enumerate(texts[1:], start=2):
        if text != texts[0]:
            lines = "\n  ".join(side_by_side(texts[0], text, "run 1"))
            raise CriterionFailed(f"run {index} of {runs} differs from the first:\n  {lines}")
    return True


def _text(returned: Any, item: pytest.Function) -> str:
    """The text of what a test returned: a string, our Completion, or openai's."""
    if isinstance(returned, str):
        return returned
    if hasattr(returned, "text"):
        return str(returned.text)
    if getattr(returned, "choices", None):
        return str(returned.choices[0].message.content)
    raise ConfigurationError(
        f"{item.nodeid} is marked determinism, so it has to return the completion to compare: "
        f"a string, a completion of `client` or one of the openai library; got {returned!r}."
    )
