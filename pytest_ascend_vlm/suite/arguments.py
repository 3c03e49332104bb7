"""The serve arguments of model files, put to vLLM's own parser as the files are collected."""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING

import pytest

from ..platforms.base import with_declared_limits
from ..spec import ModelSpec
from .run import Run

if TYPE_CHECKING:
    from ..engines.serve_parser import ServeParser

_PARSER = pytest.StashKey["ServeParser"]()
_REMEMBERED = "ascend-vlm/serve-arguments"


class _Remembered(UserDict[str, "str | None"]):
    """What the parser said before, in pytest's cache: a second run need not import vLLM."""

    def __init__(self, cache: pytest.Cache) -> None:
        super().__init__()
        self._cache = cache
        self.data = dict(cache.get(_REMEMBERED, {}))

    def __setitem__(self, key: str, value: str | None) -> None:
        super().__setitem__(key, value)
        self._cache.set(_REMEMBERED, self.data)


def checked(
    collector: pytest.Collector, report: pytest.CollectReport, run: Run
) -> pytest.CollectReport:
    """Turns the collection of a model whose serve arguments vLLM refuses into an error."""
    if report.failed or not isinstance(collector, pytest.Class) or not run.starts_servers:
        return report
    model = getattr(collector.obj, "model", None)
    if not isinstance(model, ModelSpec):
        return report
    arguments = {**with_declared_limits(model), "trust_remote_code": model.trust_remote_code}
    if problem := _parser(collector.config).problem(arguments):
        report.outcome = "failed"
        report.result = []
        report.longrepr = (
            f"{collector.nodeid}: vLLM refuses ModelSpec({model.model_id!r}, serve=...): {problem}"
        )
    return report


def close(config: pytest.Config) -> None:
    """Ends the parser's process, if one was needed."""
    if parser := config.stash.get(_PARSER, None):
        parser.close()


def _parser(config: pytest.Config) -> ServeParser:
    from ..engines.serve_parser import ServeParser

    if _PARSER not in config.stash:
        cache = getattr(config, "cache", None)
        config.stash[_PARSER] = ServeParser(_Remembered(cache) if cache else {})
    return config.stash[_PARSER]
