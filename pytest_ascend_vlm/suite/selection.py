"""Which tests run: cases per criterion, what applies to a model, what can run here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ..criteria.text import side_by_side
from ..errors import ConfigurationError, CriterionFailed
from ..spec import Case, ExpectedFailure, ModelSpec
from .criterion import Criterion
from .run import Run
from .session import NOT_APPLICABLE

_RUNS = 3


def criterion_of(item: pytest.Item) -> Criterion | None:
    """The criterion a test judges, None for a user's own test."""
    marker = item.get_closest_marker("vlm_criterion")
    return marker.args[0] if marker else None


def model_of(item: pytest.Item) -> ModelSpec | None:
    """The model of the test's class."""
    model = getattr(_cls(item), "model", None)
    return model if isinstance(model, ModelSpec) else None


def parametrize(metafunc: pytest.Metafunc, run: Run) -> None:
    """Gives a criterion its cases; without any it stays one test, which `mark` then explains."""
    what = criterion_of(metafunc.definition)
    if what is None or what.cases is None or metafunc.cls is None:
        return
    cases: tuple[Case | None, ...] = run.declared_cases(metafunc.cls.model, what.cases)
    if what.needs not in metafunc.cls.model.supports or not cases:
        cases = (None,)
    ids = [case.id if case else "no-case" for case in cases]
    metafunc.parametrize("case", cases, ids=ids)


def is_asked_for(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test belongs to the run at all.

    The reference engine is slow and needs no device: it runs where `-m` names `cpu_baseline`, and
    with `--vlm-record` nothing else does.
    """
    is_reference = item.get_closest_marker("cpu_baseline") is not None
    if config.getoption("vlm_record"):
        return is_reference
    return not is_reference or "cpu_baseline" in config.getoption("markexpr")


def server_ends_last(items: list[pytest.Item]) -> None:
    """Puts what ends a model's server behind the model's other tests, those of its file included.

    A server that was killed too early is started again, which takes its time.
    """
    for ending in [item for item in items if _ends_server(item)]:
        items.remove(ending)
        last = max((i for i, item in enumerate(items) if _cls(item) is _cls(ending)), default=-1)
        items.insert(last + 1 if last >= 0 else len(items), ending)


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
    if reason := _skipped(item, what, model, run):
        item.add_marker(pytest.mark.skip(reason=reason))
    if what is None or model is None:
        return
    for failure in _matching(model.expected_failures, item, what):
        item.add_marker(_expected(failure, strict=True))
    for failure in _matching(what.known_failures, item, what):
        item.add_marker(_expected(failure, strict=False))


def _skipped(
    item: pytest.Item, what: Criterion | None, model: ModelSpec | None, run: Run
) -> str | None:
    if what and model and (reason := _not_applicable(item, what, model, run)):
        return f"{NOT_APPLICABLE}{reason}"
    if item.get_closest_marker("npu") is None:
        return None
    return run.unavailable or (run.lacks_cards(model) if model else None)


def _not_applicable(item: pytest.Item, what: Criterion, model: ModelSpec, run: Run) -> str | None:
    if run.lacks_checkpoint(model):
        return "no tiny checkpoint; another model of its family stands for the architecture"
    if what.needs in model.unsupported:
        return f"{what.needs.value} is declared unsupported: {model.unsupported[what.needs]}"
    if what.cases is None:
        return None
    case = item.callspec.params["case"]  # type: ignore[attr-defined]
    if case is None:
        return f"no case of the group {what.cases!r}"
    reason = run.untaught(model, case)
    return f"the tiny checkpoint was not taught {case.id}: {reason}" if reason else None


def _matching(
    failures: Iterable[ExpectedFailure], item: pytest.Item, what: Criterion
) -> Iterable[ExpectedFailure]:
    callspec = getattr(item, "callspec", None)
    names = {what.id, f"{what.id}[{callspec.id}]"} if callspec else {what.id}
    return (failure for failure in failures if failure.criterion in names)


def _expected(failure: ExpectedFailure, *, strict: bool) -> pytest.MarkDecorator:
    reason = f"{failure.reason} ({failure.issue})"
    return pytest.mark.xfail(strict=strict, raises=CriterionFailed, reason=reason)


def repeat_if_marked(item: pytest.Function) -> object | None:
    """Runs a user's own test marked `determinism` several times and compares what it returns.

    Returns:
        True if the test was run here, None if pytest is to run it.
    """
    marker = item.get_closest_marker("determinism")
    if marker is None or criterion_of(item) is not None:
        return None
    runs = marker.kwargs.get("runs", marker.args[0] if marker.args else _RUNS)
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
