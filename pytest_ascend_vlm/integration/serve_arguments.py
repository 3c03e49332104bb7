"""Checks the serve arguments of model files with vLLM's own parser at collection."""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING

import pytest

from ..session.model import ModelSession
from ..session.run import Run
from ..spec.model import ModelSpec

if TYPE_CHECKING:
    from ..engines.vllm.argument_check import ArgumentChecker

_CHECKER = pytest.StashKey["ArgumentChecker"]()
_CACHE_KEY = "ascend-vlm/serve-arguments"


class _CachedAnswers(UserDict[str, "str | None"]):
    """The parser's earlier answers in pytest's cache, so that a second run need not import vLLM."""

    def __init__(self, cache: pytest.Cache) -> None:
        super().__init__()
        self._cache = cache
        self.data = dict(cache.get(_CACHE_KEY, {}))

    def __setitem__(self, key: str, value: str | None) -> None:
        super().__setitem__(key, value)
        self._cache.set(_CACHE_KEY, self.data)


def check(
    collector: pytest.Collector, report: pytest.CollectReport, run: Run, problem: str | None
) -> pytest.CollectReport:
    """Turns the collection of a model into an error if its serve arguments cannot be.

    Args:
        collector: the test class.
        report: the report of its collection.
        run: the run.
        problem: a problem that is known before vLLM is asked, or None.
    """
    if report.failed or not isinstance(collector, pytest.Class):
        return report
    if problem := problem or _rejected(collector, run):
        report.outcome = "failed"
        report.result = []
        report.longrepr = problem
    return report


def _rejected(collector: pytest.Class, run: Run) -> str | None:
    """The serve arguments that vLLM rejects or vllm-ascend ignores, with the error, or None."""
    model = getattr(collector.obj, "model", None)
    if not run.starts_servers or not isinstance(model, ModelSpec):
        return None
    problem = _problem(_checker(collector.config), ModelSession(run, model))
    return problem and f"{collector.nodeid}: the serve arguments cannot be used: {problem}"


def _problem(checker: ArgumentChecker, session: ModelSession) -> str | None:
    """The first rejected arguments of the model or one of its variants with the error, or None."""
    launched = {f"ModelSpec({session.model.model_id!r}, serve=...)": session}
    for variant in session.model.variants:
        if session.variant_not_applicable_reason(variant) is None:
            launched[f"Variant({variant.name!r}, serve=...)"] = session.variant(variant)
    for name, one in launched.items():
        if problem := checker.problem(one.arguments.all):
            return f"{name}: {problem}"
    return None


def close(config: pytest.Config) -> None:
    """Ends the checker's process, if one was started."""
    if checker := config.stash.get(_CHECKER, None):
        checker.close()


def _checker(config: pytest.Config) -> ArgumentChecker:
    from ..engines.vllm.argument_check import ArgumentChecker

    if _CHECKER not in config.stash:
        cache = getattr(config, "cache", None)
        checker = ArgumentChecker(_CachedAnswers(cache) if cache else {})
        config.stash[_CHECKER] = checker
        config.add_cleanup(checker.close)  # if the collection is interrupted
    return config.stash[_CHECKER]
